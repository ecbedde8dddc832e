"""One scene: a street, signs on their poles, things that resemble signs, and what hides them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxqat.demo.camera import photograph
from fxqat.demo.canvas import HEIGHT, WIDTH, Canvas, Colour, Image
from fxqat.demo.portable_random import Dice
from fxqat.demo.shapes import Polygon, box, disc, polygon
from fxqat.demo.signs import LOOKALIKES, SIGNS, Face, lettering
from fxqat.demo.street import GREENS, View, billboard, foliage, shade, street

LEAST_VISIBLE = 0.45
"""A sign of which less than this share is seen has no label."""
SMALLEST, LARGEST = 8.0, 64.0
"""Half the side of a sign's plate, in drawing units."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A sign as it stands in the picture: its class and its outline in drawing units, perspective applied."""

    label: int
    number: int
    """What its plate left in `Canvas.owners`."""
    outline: Polygon

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The box (left, top, right, bottom), cut at the edges of the picture, as shares of its width and height."""
        size = np.array((WIDTH, HEIGHT))
        left, top = np.clip(self.outline.min(0) / size, 0, 1)
        right, bottom = np.clip(self.outline.max(0) / size, 0, 1)
        return float(left), float(top), float(right), float(bottom)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A finished picture, uint8 (height, width, 3) RGB, and the signs in it."""

    image: Image
    signs: tuple[Sign, ...]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a plate hangs: centre and half side in drawing units, and the 3 x 3 homography of its tilt."""

    centre: tuple[float, float]
    half: float
    tilt: NDArray[np.float64]

    def place(self, figure: Polygon) -> Polygon:
        """Return the figure of plate coordinates in drawing units."""
        # Written out, since a matrix product may sum in another order on another machine.
        x, y = figure[:, 0], figure[:, 1]
        across, down, depth = (row[0] * x + row[1] * y + row[2] for row in self.tilt)
        return np.column_stack((across / depth, down / depth)) * self.half + np.array(self.centre)


def scene(dice: Dice, first: int, imgsz: int = WIDTH) -> Scene:
    """Draw a scene whose first sign is of class ``first``; the others are drawn by lot. One in sixteen has no sign."""
    canvas = Canvas(imgsz)
    signs = compose(canvas, dice, first)
    return Scene(image=photograph(canvas.picture(), dice), signs=tuple(signs))


def compose(canvas: Canvas, dice: Dice, first: int) -> list[Sign]:
    """Paint a scene and return the signs of which enough is seen."""
    view = street(canvas, dice)
    signs = _furnish(canvas, dice, view, first)
    _shadows(canvas, dice)
    return [sign for sign in signs if canvas.visible(sign.outline, sign.number) >= LEAST_VISIBLE]


def tilt(yaw: float, pitch: float, roll: float, distance: float = 5.0) -> NDArray[np.float64]:
    """Return the homography of a unit plate turned by these angles (degrees), seen from ``distance`` half sides."""
    (sy, cy), (sp, cp), (sr, cr) = ((math.sin(math.radians(a)), math.cos(math.radians(a))) for a in (yaw, pitch, roll))
    turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rows = np.array([[cy, 0, 0], [sp * sy, cp, 0], [-cp * sy / distance, sp / distance, 1]])
    return turn @ rows


def _furnish(canvas: Canvas, dice: Dice, view: View, first: int) -> list[Sign]:
    """Hang signs and lookalikes without overlap, the smallest (farthest) first."""
    labels = _labels(dice, first)
    sizes = sorted(dice.scale(SMALLEST, LARGEST) for _ in labels)
    if dice.chance(0.4):
        _advertise(canvas, dice)
    taken: list[tuple[float, float, float]] = []
    signs: list[Sign] = []
    for number, (half, label) in enumerate(zip(sizes, labels, strict=True), 1):
        pose = _free_pose(dice, view, half, taken)
        if pose is not None:
            taken.append((*pose.centre, half))
            signs += _hang(canvas, dice, view, pose, (number, label))
    return signs


def _labels(dice: Dice, first: int) -> list[int | None]:
    """Return the classes to hang, None for a lookalike, in random order."""
    count = 0 if dice.chance(1 / 16) else 1 + dice.below(4)
    classes = [first, *(dice.below(len(SIGNS)) for _ in range(count - 1))][:count]
    labels = [*classes, *(None for _ in range(dice.below(3)))]
    return sorted(labels, key=lambda _: dice.unit())


def _free_pose(dice: Dice, view: View, half: float, taken: list[tuple[float, float, float]]) -> Pose | None:
    """Return a pose clear of the signs hung before, beside the road if one is found soon, else anywhere."""
    for attempt in range(30):
        inset = half * (0.5 if dice.chance(0.06) else 1.05)
        x = dice.between(inset, WIDTH - inset)
        y = dice.between(inset, max(min(view.horizon + half * 0.9, HEIGHT - inset), inset + 1))
        beside = abs(x - view.vanish) > view.kerb(_foot(view, half))
        clear = all(max(abs(x - cx), abs(y - cy)) > (half + other) * 1.15 for cx, cy, other in taken)
        if clear and (beside or attempt > 15):
            return Pose(centre=(x, y), half=half, tilt=tilt(_angle(dice, 48), _angle(dice, 18), _angle(dice, 9)))
    return None


def _foot(view: View, half: float) -> float:
    """Return where the pole of a 70 cm sign of this half side meets the ground."""
    return view.horizon + view.eye * half / 0.35


def _angle(dice: Dice, most: float) -> float:
    """Return an angle in degrees, triangular about 0."""
    return most * (dice.unit() - dice.unit())


def _hang(canvas: Canvas, dice: Dice, view: View, pose: Pose, named: tuple[int, int | None]) -> list[Sign]:
    number, label = named
    face = SIGNS[label]() if label is not None else dice.pick(LOOKALIKES)()
    canvas.owner = 0
    _pole(canvas, dice, view, pose)
    canvas.owner = number
    _plate(canvas, dice, pose, face)
    canvas.owner = 0
    if dice.chance(0.12):
        _supplement(canvas, dice, pose)
    if dice.chance(0.2):
        dice.pick(_OCCLUDERS)(canvas, dice, pose)
    return [] if label is None else [Sign(label=label, number=number, outline=pose.place(face[0][1]))]


def _pole(canvas: Canvas, dice: Dice, view: View, pose: Pose) -> None:
    if dice.chance(0.15):
        return
    x, half = pose.centre[0] + dice.between(-0.05, 0.05) * pose.half, pose.half * dice.between(0.07, 0.11)
    foot = max(min(_foot(view, pose.half), HEIGHT + 9), pose.centre[1] + pose.half * 2)
    top = pose.centre[1] - pose.half * dice.between(0.6, 1.15)
    colour = dice.pick(((150, 154, 158), (110, 112, 116), (196, 196, 192), (84, 92, 88)))
    canvas.paint(box(x - half, top, x + half, foot), colour)
    canvas.paint(box(x - half, top, x - half * 0.3, foot), shade(colour, 125))
    if dice.chance(0.3):
        _bands(canvas, (x, half), (pose.centre[1] + pose.half, foot), pose.half * 0.6)


def _bands(canvas: Canvas, pole: tuple[float, float], span: tuple[float, float], step: float) -> None:
    (x, half), (at, foot) = pole, span
    red = True
    while at < foot:
        canvas.paint(box(x - half, at, x + half, min(at + step, foot)), (196, 36, 40) if red else (232, 230, 226))
        at, red = at + step, not red


def _plate(canvas: Canvas, dice: Dice, pose: Pose, face: Face) -> None:
    """Paint a face, weathered: paler, darker, glossy on one side, dirty."""
    faded, lit = dice.between(0, 0.4) * dice.unit(), dice.between(70, 106)
    for colour, figure in face:
        canvas.paint(pose.place(figure), shade(_fade(colour, faded), lit))
    outline = face[0][1]
    if dice.chance(0.4):
        side = dice.pick((-0.5, 0.5))
        canvas.glaze(
            pose.place(outline * (0.5, 0.96) + np.array((side * 0.9, 0.03))),
            dice.pick(((255, 255, 250), (0, 0, 0))),
            38,
        )
    for _ in range(dice.below(4)):
        spot = (dice.between(-0.6, 0.6), dice.between(-0.5, 0.6))
        canvas.glaze(pose.place(disc((dice.between(0.05, 0.3), dice.between(0.05, 0.2)), spot, 12)), (96, 82, 66), 70)


def _fade(colour: Colour, amount: float) -> Colour:
    red, green, blue = (int(c + (188 - c) * amount) for c in colour)
    return red, green, blue


def _supplement(canvas: Canvas, dice: Dice, pose: Pose) -> None:
    """Paint the white board with lettering that may hang below a sign."""
    low, high = 1.12, 1.62
    canvas.paint(pose.place(box(-0.9, low, 0.9, high)), (40, 42, 46))
    canvas.paint(pose.place(box(-0.86, low + 0.04, 0.86, high - 0.04)), (238, 238, 234))
    for piece in lettering([dice.between(0.08, 0.3) for _ in range(5)]):
        canvas.paint(pose.place(piece * (0.8, 0.6) + np.array((0.0, (low + high) / 2))), (30, 30, 34))


def _leaves(canvas: Canvas, dice: Dice, pose: Pose) -> None:
    side = dice.pick((-1.0, 1.0))
    at = (
        pose.centre[0] + side * pose.half * dice.between(0.95, 1.35),
        pose.centre[1] + pose.half * dice.between(-1.1, 0.9),
    )
    foliage(canvas, dice, at, pose.half * dice.between(0.6, 0.95), 34)


def _post(canvas: Canvas, dice: Dice, pose: Pose) -> None:
    x = pose.centre[0] + pose.half * dice.between(-0.8, 0.8)
    half = pose.half * dice.between(0.07, 0.16)
    colour = dice.pick(((74, 72, 70), (128, 126, 122), (98, 84, 70)))
    canvas.paint(box(x - half, -4, x + half, HEIGHT + 4), colour)
    canvas.paint(box(x - half, -4, x - half * 0.4, HEIGHT + 4), shade(colour, 122))


def _wires(canvas: Canvas, dice: Dice, pose: Pose) -> None:
    for _ in range(2 + dice.below(3)):
        y = pose.centre[1] + pose.half * dice.between(-1, 1)
        slope, thick = dice.between(-0.25, 0.25), dice.between(0.5, 1.2)
        ends = [(x, y + slope * (x - pose.centre[0])) for x in (-5.0, WIDTH + 5.0)]
        canvas.paint(polygon(*ends, *((x, end + thick) for x, end in reversed(ends))), (38, 38, 40))


def _sticker(canvas: Canvas, dice: Dice, pose: Pose) -> None:
    x, y = dice.between(-0.8, 0.4), dice.between(-0.6, 0.4)
    canvas.paint(
        pose.place(box(x, y, x + dice.between(0.2, 0.45), y + dice.between(0.15, 0.35))),
        dice.pick(((226, 222, 210), GREENS[1])),
    )


_OCCLUDERS: tuple[Callable[[Canvas, Dice, Pose], None], ...] = (_leaves, _leaves, _post, _wires, _sticker)


def _advertise(canvas: Canvas, dice: Dice) -> None:
    for _ in range(1 + dice.below(2)):
        width = dice.scale(24, 110)
        billboard(
            canvas,
            dice,
            (dice.between(0, WIDTH - width), dice.between(10, 190), width, width * dice.between(0.35, 1.1)),
        )
    if dice.chance(0.5):
        _traffic_light(canvas, dice)


def _traffic_light(canvas: Canvas, dice: Dice) -> None:
    x, y, r = dice.between(20, WIDTH - 20), dice.between(20, 150), dice.scale(2.5, 12)
    canvas.paint(box(x - r * 0.25, y, x + r * 0.25, HEIGHT), (120, 122, 124))
    canvas.paint(box(x - r * 1.4, y - r * 1.4, x + r * 1.4, y + r * 6.2), (26, 28, 30))
    lamps: tuple[Colour, ...] = ((232, 34, 32), (246, 196, 30), (40, 214, 110))
    lit = dice.below(3)
    for i, colour in enumerate(lamps):
        canvas.paint(disc(r, (x, y + 2.4 * r * i), 24), colour if i == lit else shade(colour, 26))


def _shadows(canvas: Canvas, dice: Dice) -> None:
    """Lay the soft shadow of something unseen across the picture."""
    if not dice.chance(0.3):
        return
    x, wide, lean = dice.between(-60, WIDTH), dice.between(40, 200), dice.between(-120, 120)
    canvas.glaze(
        polygon((x, 0), (x + wide, 0), (x + wide + lean, HEIGHT), (x + lean, HEIGHT)), (8, 10, 20), 40 + dice.below(70)
    )
