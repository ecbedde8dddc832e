from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxqat.demo.camera import NIGHT, NOON, Light, expose, grain, haze, photograph, shake, soften
from fxqat.demo.canvas import Image
from fxqat.demo.portable_random import Dice

PLAIN = Light(gains=(1.0, 1.0, 1.0), gamma=1.0, vignette=0)


def picture(key: int = 0) -> Image:
    return Dice(key).octets(36, 48, 3)


@given(level=st.integers(0, 255), reach=st.integers(1, 4), level_shift=st.booleans())
def test_blur_keeps_a_flat_picture(level: int, reach: int, level_shift: bool) -> None:
    flat = np.full((12, 16, 3), level, np.uint8)
    assert np.array_equal(soften(flat), flat)
    assert np.array_equal(shake(flat, reach, level_shift), flat)


def test_soften_spreads_a_point_as_the_binomial() -> None:
    point = np.zeros((5, 5, 3), np.uint8)
    point[2, 2] = 170
    assert soften(point)[1:4, 1:4, 0].tolist() == [[11, 21, 11], [21, 43, 21], [11, 21, 11]]  # 10.6, 21.3, 42.5


@pytest.mark.parametrize("level", [True, False])
def test_shake_spreads_a_point_along_one_axis(level: bool) -> None:
    point = np.zeros((9, 9, 3), np.uint8)
    point[4, 4] = 150
    line = shake(point, 2, level)[..., 0] > 0
    rows, columns = np.nonzero(line)
    assert (set(rows), set(columns)) == (({4}, {2, 3, 4, 5, 6}) if level else ({2, 3, 4, 5, 6}, {4}))


def test_plain_light_changes_nothing_and_night_darkens() -> None:
    assert np.array_equal(expose(picture(), PLAIN, 1.0), picture())
    assert expose(picture(), NIGHT, 1.0).mean() < 0.5 * expose(picture(), NOON, 1.0).mean()


def test_the_vignette_is_full_at_the_corners_and_absent_at_the_centre() -> None:
    white = np.full((37, 49, 3), 255, np.uint8)
    seen = expose(white, Light(gains=(1, 1, 1), gamma=1, vignette=64), 1.0)
    # 255 * (256 - 64) >> 8 and 255 * 256 >> 8.
    assert (seen[0, 0, 0], seen[-1, -1, 0], seen[18, 24, 0]) == (191, 191, 255)


@given(density=st.integers(0, 256))
def test_haze_is_a_blend_towards_206(density: int) -> None:
    expected = (picture().astype(int) * (256 - density) + 206 * density) // 256
    assert np.array_equal(haze(picture(), density), expected)


@settings(max_examples=8)
@given(strength=st.integers(1, 14))
def test_grain_has_its_strength_and_no_bias(strength: int) -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    noise = grain(grey, Dice(strength), strength).astype(int) - 128
    # Four octets deviate by 2 * 73.9 = 147.8; times strength / 128, plus flooring (0.29 and a bias of -0.5).
    expected = np.hypot(147.8 * strength / 128, 0.29)
    # 14400 samples: 0.6 % for the deviation, five of them; the mean deviates by expected / 120.
    assert noise.std() == pytest.approx(expected, rel=0.04)
    assert abs(noise.mean() + 0.5) < 5 * expected / 120


@given(key=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_a_photograph_keeps_shape_and_type_and_follows_its_dice(key: int) -> None:
    first, second = (photograph(picture(), Dice(key)) for _ in range(2))
    assert first.shape == picture().shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
