"""The faces of ten Vietnamese road signs (QCVN 41), and of things that only look like signs.

A face is a list of (colour, polygon) painted in order on a plate whose outline lies in [-1, 1] x [-1, 1]; the first
polygon is the outline, and its bounds are the sign's box.
"""

from __future__ import annotations

from collections.abc import Callable

from fxqat.demo.canvas import Colour
from fxqat.demo.shapes import Point, Polygon, arc, arrow_head, box, disc, polygon, rounded_triangle, stroke

Face = list[tuple[Colour, Polygon]]

RED: Colour = (204, 22, 34)
BLUE: Colour = (16, 78, 168)
WHITE: Colour = (244, 244, 240)
YELLOW: Colour = (250, 208, 28)
BLACK: Colour = (24, 24, 26)


def no_entry() -> Face:
    """P.102: a red disc with a white bar."""
    return [(WHITE, disc(1.0)), (RED, disc(0.95)), (WHITE, box(-0.68, -0.17, 0.68, 0.17))]


def no_stopping() -> Face:
    """P.130: a blue disc, red rim and red cross."""
    return [*_blue_with_red_rim(), *_slash(RED, 0.17), *_slash(RED, 0.17, mirrored=True)]


def no_parking() -> Face:
    """P.131a: a blue disc, red rim and one red slash."""
    return [*_blue_with_red_rim(), *_slash(RED, 0.17)]


def no_left_turn() -> Face:
    """P.123a: a red ring on white, a black arrow to the left, a red slash."""
    return [*_ring(), *_left_turn(BLACK), *_slash(RED, 0.13)]


def speed_limit_50() -> Face:
    """P.127 with 50."""
    return _limit(five, zero)


def speed_limit_80() -> Face:
    """P.127 with 80."""
    return _limit(eight, zero)


def warning_curve() -> Face:
    """W.201: a yellow triangle with a bending arrow."""
    shaft = [(0.17, 0.52), *arc((-0.05, 0.32), 0.22, 0, -60, 6), (-0.13, -0.04)]
    return [*_triangle(), *_ink(BLACK, stroke(shaft, 0.13)), (BLACK, arrow_head((-0.28, -0.36), -117, 0.36, 0.36))]


def warning_pedestrians() -> Face:
    """W.224: a yellow triangle with a walking figure."""
    limbs = [
        ([(0.0, -0.1), (-0.02, 0.18)], 0.2),
        ([(-0.02, 0.18), (0.12, 0.36), (0.18, 0.56)], 0.09),
        ([(-0.02, 0.18), (-0.1, 0.38), (-0.26, 0.54)], 0.09),
        ([(0.02, -0.12), (0.18, 0.04), (0.28, 0.0)], 0.07),
        ([(-0.04, -0.12), (-0.2, 0.02), (-0.2, 0.16)], 0.07),
    ]
    figure = [(BLACK, piece) for points, width in limbs for piece in stroke(points, width)]
    return [*_triangle(), (BLACK, disc(0.115, (0.03, -0.32))), *figure]


def mandatory_straight() -> Face:
    """R.301a: a blue disc with a white arrow up."""
    return [*_blue(), (WHITE, box(-0.13, -0.2, 0.13, 0.68)), (WHITE, arrow_head((0, -0.74), -90, 0.62, 0.72))]


def mandatory_roundabout() -> Face:
    """R.303: a blue disc with three white arrows in a circle."""
    return [*_blue(), *(part for turn in (-90, 30, 150) for part in _circling(turn))]


SIGNS: tuple[Callable[[], Face], ...] = (
    no_entry,
    no_stopping,
    no_parking,
    no_left_turn,
    speed_limit_50,
    speed_limit_80,
    warning_curve,
    warning_pedestrians,
    mandatory_straight,
    mandatory_roundabout,
)
CLASSES: tuple[str, ...] = tuple(sign.__name__ for sign in SIGNS)
"""The class names, by class index."""


def blank_ring() -> Face:
    """Return a red ring on white without a symbol: not a class."""
    return _ring()


def limit_60() -> Face:
    """Return a speed limit of 60: not a class, though it resembles two."""
    return _limit(six, zero)


def right_turn_ban() -> Face:
    """Return the mirror image of no_left_turn's arrow, under the same slash: not a class."""
    arrow = [(colour, piece * (-1.0, 1.0)) for colour, piece in _left_turn(BLACK)]
    return [*_ring(), *arrow, *_slash(RED, 0.13)]


def blank_triangle() -> Face:
    """Return a yellow triangle with an exclamation mark: not a class."""
    return [*_triangle(), (BLACK, box(-0.09, -0.36, 0.09, 0.26)), (BLACK, disc(0.1, (0, 0.46)))]


def blue_right() -> Face:
    """Return a blue disc with an arrow to the right: not a class."""
    return [*_blue(), (WHITE, box(-0.64, -0.13, 0.2, 0.13)), (WHITE, arrow_head((0.74, 0), 0, 0.62, 0.72))]


def mirror() -> Face:
    """Return a convex street mirror: not a class."""
    return [((222, 96, 30), disc(1.0)), ((150, 170, 186), disc(0.84)), ((206, 216, 222), disc(0.5, (-0.2, -0.24)))]


LOOKALIKES: tuple[Callable[[], Face], ...] = (
    blank_ring,
    limit_60,
    right_turn_ban,
    blank_triangle,
    blue_right,
    mirror,
)


def five(left: float) -> list[Polygon]:
    """Return the digit 5, 0.5 wide, its left edge at ``left``."""
    bowl = arc((left + 0.23, 0.14), (0.2, 0.23), -150, 150, 18)
    return stroke([(left + 0.42, -0.38), (left + 0.09, -0.38), (left + 0.05, 0.0), *bowl], 0.13)


def zero(left: float) -> list[Polygon]:
    """Return the digit 0."""
    return stroke(arc((left + 0.25, 0.0), (0.2, 0.38), 0, 360, 28), 0.13)


def eight(left: float) -> list[Polygon]:
    """Return the digit 8."""
    top = stroke(arc((left + 0.25, -0.2), (0.16, 0.18), 0, 360, 22), 0.13)
    return top + stroke(arc((left + 0.25, 0.18), (0.2, 0.2), 0, 360, 22), 0.13)


def six(left: float) -> list[Polygon]:
    """Return the digit 6."""
    back = [(left + 0.38, -0.38), *arc((left + 0.3, 0.1), (0.25, 0.46), -100, -180, 8)]
    return stroke(back, 0.13) + stroke(arc((left + 0.25, 0.16), (0.2, 0.22), 0, 360, 22), 0.13)


def _ink(colour: Colour, pieces: list[Polygon]) -> Face:
    return [(colour, piece) for piece in pieces]


def _ring() -> Face:
    return [(RED, disc(1.0)), (WHITE, disc(0.78))]


def _blue() -> Face:
    return [(WHITE, disc(1.0)), (BLUE, disc(0.94))]


def _blue_with_red_rim() -> Face:
    return [(RED, disc(1.0)), (BLUE, disc(0.8))]


def _triangle() -> Face:
    return [(RED, rounded_triangle(0.96, 0.16, (0, 0.12))), (YELLOW, rounded_triangle(0.69, 0.09, (0, 0.12)))]


def _slash(colour: Colour, width: float, *, mirrored: bool = False) -> Face:
    sign = -1.0 if mirrored else 1.0
    return _ink(colour, stroke([(-0.6 * sign, -0.6), (0.6 * sign, 0.6)], width, round_ends=False))


def _left_turn(colour: Colour) -> Face:
    shaft = [(0.26, 0.52), *arc((0.08, 0.0), 0.18, 0, -90, 6), (-0.16, -0.18)]
    return [*_ink(colour, stroke(shaft, 0.17, round_ends=False)), (colour, arrow_head((-0.56, -0.18), 180, 0.42, 0.5))]


def _limit(tens: Callable[[float], list[Polygon]], units: Callable[[float], list[Polygon]]) -> Face:
    return [*_ring(), *_ink(BLACK, tens(-0.56)), *_ink(BLACK, units(0.04))]


def _circling(turn: float) -> Face:
    shaft = arc((0, 0), 0.5, turn - 95, turn - 30, 12)
    tip: Point = arc((0, 0), 0.5, turn + 8, turn + 8, 2)[0]
    return [*_ink(WHITE, stroke(shaft, 0.2, round_ends=False)), (WHITE, arrow_head(tip, turn + 78, 0.36, 0.52))]


def lettering(widths: list[float]) -> list[Polygon]:
    """Return bars of these widths side by side, as lettering seen from afar, on a line from -1 to 1."""
    edges, at = [], -0.86
    for width in widths:
        edges.append(polygon((at, -0.2), (at + width, -0.2), (at + width, 0.2), (at, 0.2)))
        at += width + 0.06
    return edges
