from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxqat.demo.portable_random import Dice

KEYS = st.integers(0, 2**32 - 1)


def test_the_stream_is_pinned() -> None:
    # NumPy guarantees the raw bits of PCG64 and SeedSequence (NEP 19); these must never change.
    dice = Dice(0, 1, 2)
    assert [dice.below(1000) for _ in range(6)] == PINNED_BELOW
    assert dice.octets(5).tolist() == PINNED_OCTETS


PINNED_BELOW = [881, 289, 871, 125, 176, 317]
PINNED_OCTETS = [26, 10, 179, 216, 163]


@given(key=KEYS, low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_between_stays_in_its_interval(key: int, low: float, span: float) -> None:
    # Rounding may carry low + span * u up to the end itself, never beyond.
    assert low <= Dice(key).between(low, low + span) <= low + span


@given(key=KEYS, low=st.floats(1e-3, 1e3), ratio=st.floats(1.001, 1e3))
def test_scale_stays_in_its_interval(key: int, low: float, ratio: float) -> None:
    value = Dice(key).scale(low, low * ratio)
    # pow and two products: at most a few ulp, 2.2e-16 each.
    assert low * (1 - 1e-15) <= value <= low * ratio * (1 + 1e-15)


@given(key=KEYS, count=st.integers(1, 10**6))
def test_below_is_an_index(key: int, count: int) -> None:
    assert 0 <= Dice(key).below(count) < count


def test_below_is_uniform() -> None:
    dice = Dice(7)
    counts = np.bincount([dice.below(10) for _ in range(10_000)], minlength=10)
    # Binomial(10000, 0.1): deviation 30; five of them.
    assert np.abs(counts - 1000).max() < 150


def test_octets_fill_the_shape_and_are_uniform() -> None:
    octets = Dice(3).octets(100, 101, 3)
    assert octets.shape == (100, 101, 3)
    assert octets.dtype == np.uint8
    # The mean of 30300 uniform octets deviates by 73.9 / sqrt(30300) = 0.42; five of them.
    assert abs(octets.mean() - 127.5) < 2.1


@pytest.mark.parametrize("other", [(0,), (0, 1, 3), (1, 0, 2)])
def test_another_key_is_another_stream(other: tuple[int, ...]) -> None:
    assert Dice(*other).unit() != Dice(0, 1, 2).unit()


def test_chance_and_pick_follow_the_extremes() -> None:
    dice = Dice(1)
    assert all(dice.chance(1.0) for _ in range(50))
    assert not any(dice.chance(0.0) for _ in range(50))
    assert {dice.pick("abc") for _ in range(60)} == set("abc")
