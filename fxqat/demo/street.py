"""The street behind the signs: sky, hills, houses, road, trees, traffic, painted from far to near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fxqat.demo.canvas import HEIGHT, WIDTH, Canvas, Colour
from fxqat.demo.portable_random import Dice
from fxqat.demo.shapes import Polygon, box, disc, polygon

FACADES: tuple[Colour, ...] = (
    (236, 196, 110),
    (240, 226, 192),
    (176, 206, 190),
    (214, 152, 132),
    (160, 184, 206),
    (222, 214, 206),
    (188, 116, 92),
    (204, 178, 208),
    (142, 150, 140),
)
SHOP_SIGNS: tuple[Colour, ...] = ((196, 30, 40), (20, 84, 160), (246, 206, 40), (24, 130, 84), (238, 120, 30))
GREENS: tuple[Colour, ...] = ((38, 82, 40), (54, 104, 46), (76, 128, 54), (98, 148, 66), (46, 92, 62))
CARS: tuple[Colour, ...] = ((220, 220, 222), (36, 38, 44), (160, 24, 30), (96, 104, 114), (26, 60, 116), (200, 170, 60))


@dataclass(frozen=True, kw_only=True)
class View:
    """A pinhole camera above a straight road; metres in, drawing units out."""

    vanish: float
    """Where the road vanishes, from the left."""
    horizon: float
    focal: float
    eye: float
    """Height of the camera, metres."""
    road: float
    """Half the width of the road, metres."""

    def kerb(self, y: float) -> float:
        """Return the road's half width in the picture's row ``y`` below the horizon."""
        return self.road * (y - self.horizon) / self.eye

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the picture of a point ``x`` to the right, ``y`` above the road, ``z`` ahead (metres)."""
        return self.vanish + self.focal * x / z, self.horizon - self.focal * (y - self.eye) / z

    def upright(self, x: float, low: float, high: float, near: float, far: float) -> Polygon:
        """Return a wall along the road at ``x``."""
        corners = ((low, near), (low, far), (high, far), (high, near))
        return polygon(*(self.point(x, y, z) for y, z in corners))

    def board(self, left: float, right: float, low: float, high: float, z: float) -> Polygon:
        """Return a wall across the road, facing the camera."""
        corners = ((left, low), (right, low), (right, high), (left, high))
        return polygon(*(self.point(x, y, z) for x, y in corners))

    def floor(self, left: float, right: float, near: float, far: float, y: float = 0.0) -> Polygon:
        """Return a level rectangle."""
        corners = ((left, near), (left, far), (right, far), (right, near))
        return polygon(*(self.point(x, y, z) for x, z in corners))


def street(canvas: Canvas, dice: Dice) -> View:
    """Paint a street and return how it was seen."""
    view = View(
        vanish=dice.between(130, 350),
        horizon=dice.between(140, 215),
        focal=dice.between(300, 440),
        eye=dice.between(1.2, 2.4),
        road=dice.between(3.2, 6.5),
    )
    _sky(canvas, dice, view)
    _hills(canvas, dice, view)
    _road(canvas, dice, view)
    _sides(canvas, dice, view)
    return view


def shade(colour: Colour, percent: float) -> Colour:
    """Return ``colour`` at this brightness, each channel cut at 255."""
    red, green, blue = (min(int(c * percent / 100), 255) for c in colour)
    return red, green, blue


def foliage(canvas: Canvas, dice: Dice, centre: tuple[float, float], radius: float, leaves: int) -> None:
    """Paint a crown of leaves: blobs, dark ones first and low, light ones last and high."""
    tint = dice.below(len(GREENS))
    for i in range(leaves):
        share = i / leaves
        across, down = (dice.between(-1, 1) * dice.unit() for _ in range(2))
        at = (centre[0] + across * radius, centre[1] + (down * 0.85 - 0.25 * share) * radius)
        size = radius * dice.between(0.12, 0.34)
        canvas.paint(disc((size * 1.15, size), at, 7), shade(GREENS[(tint + i % 2) % 5], 60 + 65 * share))


def _sky(canvas: Canvas, dice: Dice, view: View) -> None:
    high, low = dice.pick(
        (
            ((92, 146, 214), (206, 224, 238)),
            ((176, 188, 198), (226, 228, 228)),
            ((66, 118, 190), (236, 214, 184)),
            ((140, 152, 166), (204, 204, 200)),
        )
    )
    canvas.rows(0, view.horizon + 2, high, low)
    for _ in range(dice.below(5)):
        _cloud(canvas, dice, view)


def _cloud(canvas: Canvas, dice: Dice, view: View) -> None:
    x, y, size = dice.between(0, WIDTH), dice.between(0, view.horizon * 0.7), dice.between(12, 40)
    for _ in range(9):
        at = (x + dice.between(-2.2, 2.2) * size, y + dice.between(-0.3, 0.3) * size)
        canvas.glaze(disc((size * dice.between(0.5, 1.1), size * dice.between(0.2, 0.45)), at, 20), (255, 255, 255), 60)


def _hills(canvas: Canvas, dice: Dice, view: View) -> None:
    for layer in range(2):
        colour = shade((112, 142, 152) if layer == 0 else (84, 122, 96), dice.between(85, 110))
        steps = [dice.between(4, 46 - 14 * layer) for _ in range(9)]
        ridge = [(WIDTH * i / 8, view.horizon - step) for i, step in enumerate(steps)]
        canvas.paint(polygon((0, view.horizon + 3), *ridge, (WIDTH, view.horizon + 3)), colour)


def _road(canvas: Canvas, dice: Dice, view: View) -> None:
    road = view.road
    verge = dice.pick(((122, 134, 78), (166, 158, 146), (150, 138, 112), (104, 128, 76)))
    canvas.rows(view.horizon, HEIGHT, shade(verge, 108), shade(verge, 78))
    canvas.paint(view.floor(-road - 2.5, road + 2.5, 0.6, 300), dice.pick(((176, 168, 160), (158, 150, 150), verge)))
    asphalt = shade((104, 104, 108), dice.between(70, 115))
    canvas.paint(view.floor(-road, road, 0.6, 300), asphalt)
    for _ in range(14):
        _patch(canvas, dice, view)
    _markings(canvas, dice, view)


def _patch(canvas: Canvas, dice: Dice, view: View) -> None:
    road = view.road
    near, x = dice.scale(1.5, 30), dice.between(-road, road * 0.8)
    figure = view.floor(x, x + dice.between(0.2, 2.5), near, near * dice.between(1.05, 1.6))
    canvas.glaze(figure, dice.pick(((20, 20, 22), (190, 184, 176))), 24)


def _markings(canvas: Canvas, dice: Dice, view: View) -> None:
    road = view.road
    paint = dice.pick(((232, 230, 222), (236, 204, 92)))
    for x in (-road * 0.93, road * 0.93):
        canvas.paint(view.floor(x - 0.06, x + 0.06, 0.6, 120), (224, 222, 214))
    for i in range(14):
        canvas.paint(view.floor(-0.07, 0.07, 1.2 + 5 * i, 3.6 + 5 * i), paint)
    if dice.chance(0.3):
        near = dice.between(4, 14)
        for i in range(int(road * 2)):
            canvas.paint(view.floor(-road + i + 0.2, -road + i + 0.75, near, near + 2.5), (226, 224, 218))


def _sides(canvas: Canvas, dice: Dice, view: View) -> None:
    """Collect what stands beside and on the road, then paint it from far to near."""
    things: list[tuple[float, Callable[[], None]]] = []
    for side in (-1.0, 1.0):
        things += _row_of_houses(canvas, dice, view, side * (view.road + dice.between(2.5, 7)))
        things += _row_of_trees(canvas, dice, view, side * (view.road + 1.3))
    things += _traffic(canvas, dice, view)
    for _, painter in sorted(things, key=lambda thing: -thing[0]):
        painter()


def _row_of_houses(canvas: Canvas, dice: Dice, view: View, x: float) -> list[tuple[float, Callable[[], None]]]:
    near, density = dice.between(2.5, 8), dice.between(0.35, 1.0)
    things: list[tuple[float, Callable[[], None]]] = []
    while near < 90:
        far = near + dice.between(4, 9) * (1 + near / 40)
        if dice.chance(density):
            things.append((near, _house(canvas, Dice(dice.below(1 << 40)), view, x, near, far)))
        near = far
    return things


def _house(canvas: Canvas, dice: Dice, view: View, x: float, near: float, far: float) -> Callable[[], None]:
    def paint() -> None:
        height, wall = dice.pick((4.0, 7.0, 10.5, 10.5, 14.0)) + dice.unit(), dice.pick(FACADES)
        away = x + (9.0 if x > 0 else -9.0)
        canvas.paint(view.board(min(x, away), max(x, away), 0, height, near), shade(wall, 74))
        canvas.paint(view.upright(x, 0, height, near, far), wall)
        canvas.paint(view.upright(x, height - 0.35, height, near, far), shade(wall, 118))
        _windows(canvas, dice, view, (x, near, far, height))
        _shop(canvas, dice, view, (x, near, far))

    return paint


def _windows(canvas: Canvas, dice: Dice, view: View, wall: tuple[float, float, float, float]) -> None:
    x, near, far, height = wall
    count = 2 + dice.below(2)
    glass = dice.pick(((52, 66, 80), (92, 116, 132), (64, 58, 52), (120, 142, 150)))
    step = (far - near) / count
    for storey in range(int((height - 3.6) / 3.2)):
        low = 4.2 + 3.2 * storey
        for i in range(count):
            a = near + step * (i + 0.22)
            canvas.paint(view.upright(x, low - 0.12, low + 1.82, a - 0.1, a + step * 0.56 + 0.1), (232, 228, 220))
            canvas.paint(view.upright(x, low, low + 1.7, a, a + step * 0.56), shade(glass, dice.between(80, 120)))


def _shop(canvas: Canvas, dice: Dice, view: View, wall: tuple[float, float, float]) -> None:
    x, near, far = wall
    canvas.paint(
        view.upright(x, 0, 2.5, near + 0.4, far - 0.4), dice.pick(((46, 44, 46), (92, 84, 78), (130, 134, 138)))
    )
    if not dice.chance(0.75):
        return
    board = dice.pick(SHOP_SIGNS)
    canvas.paint(view.upright(x, 2.6, 3.5, near + 0.2, far - 0.2), board)
    ink = (250, 246, 236) if sum(board) < 440 else (140, 20, 26)
    at, end = near + 0.7, far - 0.7
    while at < end:
        wide = dice.between(0.15, 0.5)
        canvas.paint(view.upright(x, 2.82, 3.28, at, min(at + wide, end)), ink)
        at += wide + 0.14


def _row_of_trees(canvas: Canvas, dice: Dice, view: View, x: float) -> list[tuple[float, Callable[[], None]]]:
    return [
        (z, _tree(canvas, Dice(dice.below(1 << 40)), view, (x, z)))
        for z in (dice.scale(5, 60) for _ in range(dice.below(6)))
    ]


def _tree(canvas: Canvas, dice: Dice, view: View, foot: tuple[float, float]) -> Callable[[], None]:
    def paint() -> None:
        x, z = foot[0] + dice.between(-0.3, 0.3), foot[1]
        height, crown = dice.between(3, 5.5), dice.between(1.2, 2.4)
        canvas.paint(view.board(x - 0.13, x + 0.13, 0, height, z), (92, 74, 58))
        foliage(canvas, dice, view.point(x, height + crown * 0.5, z), crown * view.focal / z, 70)

    return paint


def _traffic(canvas: Canvas, dice: Dice, view: View) -> list[tuple[float, Callable[[], None]]]:
    things = []
    for _ in range(dice.below(6)):
        x, z = dice.between(-view.road * 0.85, view.road * 0.7), dice.scale(6, 50)
        vehicle = _car if dice.chance(0.5) else _motorbike
        things.append((z, vehicle(canvas, Dice(dice.below(1 << 40)), view, (x, z))))
    return things


def _car(canvas: Canvas, dice: Dice, view: View, at: tuple[float, float]) -> Callable[[], None]:
    def paint() -> None:
        (x, z), body, tall = at, dice.pick(CARS), dice.between(1.4, 2.3)
        canvas.glaze(view.floor(x - 0.1, x + 2.0, z - 0.3, z + 3), (10, 10, 12), 130)
        for wheel in (x + 0.1, x + 1.5):
            canvas.paint(view.board(wheel, wheel + 0.22, 0, 0.4, z), (18, 18, 20))
        canvas.paint(view.board(x, x + 1.8, 0.25, tall * 0.6, z), body)
        roof = (view.point(x + 0.08, tall * 0.6, z), view.point(x + 0.28, tall, z))
        other = (view.point(x + 1.52, tall, z), view.point(x + 1.72, tall * 0.6, z))
        canvas.paint(polygon(*roof, *other), shade(body, 88))
        canvas.paint(view.board(x + 0.32, x + 1.48, tall * 0.64, tall * 0.93, z), (44, 54, 64))
        for lamp in (x + 0.06, x + 1.5):
            canvas.paint(view.board(lamp, lamp + 0.24, tall * 0.4, tall * 0.52, z), (206, 30, 34))
        canvas.paint(view.board(x + 0.65, x + 1.15, tall * 0.3, tall * 0.4, z), (236, 234, 226))

    return paint


def _motorbike(canvas: Canvas, dice: Dice, view: View, at: tuple[float, float]) -> Callable[[], None]:
    def paint() -> None:
        (x, z), shirt, helmet = at, dice.pick(SHOP_SIGNS + CARS), dice.pick(SHOP_SIGNS + CARS)
        canvas.glaze(view.floor(x - 0.1, x + 0.8, z - 0.2, z + 1.4), (10, 10, 12), 120)
        canvas.paint(view.board(x + 0.26, x + 0.4, 0, 0.62, z), (20, 20, 22))
        canvas.paint(view.board(x + 0.14, x + 0.52, 0.42, 0.86, z), dice.pick(CARS))
        canvas.paint(view.board(x + 0.08, x + 0.58, 0.8, 1.4, z), shirt)
        canvas.paint(view.board(x - 0.02, x + 0.68, 1.0, 1.08, z), (40, 40, 44))
        radius = 0.15 * view.focal / z
        canvas.paint(disc(radius, view.point(x + 0.33, 1.52, z), 14), helmet)

    return paint


def billboard(canvas: Canvas, dice: Dice, frame: tuple[float, float, float, float]) -> None:
    """Paint an advertisement in the upright rectangle (left, top, width, height)."""
    left, top, width, height = frame
    ground, ink = dice.pick(SHOP_SIGNS), dice.pick(((250, 248, 240), (30, 30, 34), (250, 220, 60)))
    canvas.paint(box(left - 1.5, top - 1.5, left + width + 1.5, top + height + 1.5), (70, 72, 76))
    canvas.paint(box(left, top, left + width, top + height), ground)
    if dice.chance(0.6):
        at = (left + width * dice.between(0.2, 0.35), top + height * 0.5)
        canvas.paint(
            disc(min(width, height) * dice.between(0.2, 0.38), at, 30), dice.pick((*SHOP_SIGNS, (250, 250, 250)))
        )
    for line in range(1 + dice.below(3)):
        low = top + height * (0.2 + 0.25 * line)
        canvas.paint(box(left + width * 0.5, low, left + width * dice.between(0.65, 0.95), low + height * 0.12), ink)
