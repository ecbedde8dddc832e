"""Plane figures as polygons: float64 arrays of shape (points, 2), x to the right, y down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]
Point = tuple[float, float]


def polygon(*points: Point) -> Polygon:
    """Return the polygon with these corners."""
    return np.array(points, dtype=np.float64)


def arc(centre: Point, radii: float | Point, start: float, stop: float, points: int = 24) -> list[Point]:
    """Return points on an ellipse's arc; angles in degrees, 0 to the right, growing clockwise on the screen."""
    return [(float(x), float(y)) for x, y in _ellipse(centre, radii, _turns(start, stop, points))]


def disc(radius: float | Point, centre: Point = (0.0, 0.0), points: int = 48) -> Polygon:
    """Return a disc, or an ellipse where ``radius`` is (across, down)."""
    return _ellipse(centre, radius, _turns(0, 360, points + 1)[:-1])


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return an upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def stroke(points: Sequence[Point], width: float, *, round_ends: bool = True) -> list[Polygon]:
    """Return the pieces of a thick line through ``points``: a bar a segment, a disc a joint."""
    bars = [_bar(a, b, width / 2) for a, b in pairwise(points)]
    joints = points if round_ends else points[1:-1]
    return bars + [disc(width / 2, joint, 16) for joint in joints]


def arrow_head(tip: Point, direction: float, length: float, width: float) -> Polygon:
    """Return a triangle with its tip at ``tip``, pointing to ``direction`` (degrees, as in `arc`)."""
    along = (math.cos(math.radians(direction)), math.sin(math.radians(direction)))
    base = (tip[0] - along[0] * length, tip[1] - along[1] * length)
    half = (-along[1] * width / 2, along[0] * width / 2)
    return polygon(tip, (base[0] + half[0], base[1] + half[1]), (base[0] - half[0], base[1] - half[1]))


def rounded_triangle(radius: float, corner: float, centre: Point = (0.0, 0.0)) -> Polygon:
    """Return an equilateral triangle, tip up, its corner circles of radius ``corner`` at ``radius`` from the centre."""
    ways = (-90.0, 30.0, 150.0)
    hubs = [
        (centre[0] + radius * math.cos(math.radians(w)), centre[1] + radius * math.sin(math.radians(w))) for w in ways
    ]
    return polygon(*(p for hub, w in zip(hubs, ways, strict=True) for p in arc(hub, corner, w - 60, w + 60, 8)))


def _bar(a: Point, b: Point, half: float) -> Polygon:
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.sqrt(dx * dx + dy * dy)
    nx, ny = -dy / length * half, dx / length * half
    return polygon((a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny), (b[0] - nx, b[1] - ny), (a[0] - nx, a[1] - ny))


def _ellipse(centre: Point, radii: float | Point, turns: Polygon) -> Polygon:
    return turns * np.array(radii) + np.array(centre)


@cache
def _turns(start: float, stop: float, points: int) -> Polygon:
    """Return (cos, sin) of angles from start to stop, in degrees."""
    angles = [math.radians(start + (stop - start) * i / (points - 1)) for i in range(points)]
    return polygon(*((math.cos(a), math.sin(a)) for a in angles))
