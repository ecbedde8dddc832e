from __future__ import annotations

import itertools

import numpy as np
import pytest

from fxqat.demo.canvas import Canvas, Image
from fxqat.demo.shapes import Polygon
from fxqat.demo.signs import CLASSES, LOOKALIKES, SIGNS, Face

FACES = SIGNS + LOOKALIKES


def drawn(face: Face) -> Image:
    canvas = Canvas(160)
    for colour, figure in face:
        canvas.paint(figure * 170 + np.array((240, 180)), colour)
    return canvas.picture()


def covered(figure: Polygon) -> Image:
    canvas = Canvas(160)
    canvas.paint(figure * 170 + np.array((240, 180)), (255, 255, 255))
    return canvas.samples[..., 0]


def test_there_are_ten_named_classes() -> None:
    assert CLASSES == (
        "no_entry",
        "no_stopping",
        "no_parking",
        "no_left_turn",
        "speed_limit_50",
        "speed_limit_80",
        "warning_curve",
        "warning_pedestrians",
        "mandatory_straight",
        "mandatory_roundabout",
    )


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_the_outline_fills_the_plate(face: object) -> None:
    outline = face()[0][1]  # type: ignore[operator]
    assert np.abs(outline).max() <= 1.0
    # The rounded triangle is the smallest: 0.94 up, 0.76 down, 0.99 aside.
    assert (np.ptp(outline, axis=0) > 1.69).all()


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_nothing_is_painted_outside_the_outline(face: object) -> None:
    parts = face()  # type: ignore[operator]
    plate = covered(parts[0][1])
    for _, figure in parts[1:]:
        assert not np.any((covered(figure) > 0) & (plate == 0))


def test_every_face_differs_from_every_other() -> None:
    pictures = [drawn(face()).astype(int) for face in FACES]
    differing = [(np.abs(a - b).max(axis=-1) > 60).sum() for a, b in itertools.combinations(pictures, 2)]
    # The plates are 113 pixels wide, about 10000 pixels; the nearest pair differs in one digit's bar.
    assert min(differing) > 60
