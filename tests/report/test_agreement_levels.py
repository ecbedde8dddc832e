"""Levels without labels: a share of float's detections is a loss only where chance does not explain it."""

from __future__ import annotations

import math

import pytest

from fxqat.report.actions import MEASURE
from fxqat.report.agreement_levels import CLASSES, FINDS, MISSES, OBJECTS, Words, highest, objects_needed
from fxqat.report.detections import Agreement
from fxqat.report.measurements import Measurements
from fxqat.report.verdict import judge


@pytest.mark.parametrize(("covers", "words"), [("boxes", OBJECTS), ("masks", OBJECTS), ("", CLASSES)])
@pytest.mark.parametrize(
    ("kept", "before", "level"),
    [
        (30, 30, "good"),
        (29, 30, "open"),  # one of thirty
        (62, 64, "open"),
        (97, 100, "good"),
        (95, 100, "open"),
        (92, 100, "care"),
        (950, 1000, "care"),  # the same share as 95 of 100, of more
        (85, 100, "care"),  # it may be 0.907
        (60, 100, "bad"),
    ],
)
def test_level_and_headline(kept: int, before: int, level: str, covers: str, words: Words) -> None:
    verdict = judge(Measurements(agreement=Agreement(images=64, before=before, kept=kept, covers=covers)))
    assert (verdict.level, verdict.headline) == (level, getattr(words, level))
    assert (verdict.action == MEASURE) == (level == "open")


@pytest.mark.parametrize(
    ("covers", "words"), [("boxes", "so many that float finds 551 objects on them."), ("", "551.")]
)
def test_what_chance_explains_says_how_many_would_tell(covers: str, words: str) -> None:
    """29 / 30 * 1 / 30 * (2 * 1.96 / 0.03) ** 2 = 550.2."""
    found = Agreement(images=30, before=30, kept=29, covers=covers)
    assert objects_needed(found) == 551
    assert judge(Measurements(agreement=found)).advice == (
        f"Measure it on more images than these before it is used: 50 with labels, or, without labels, {words}"
    )


def by_chance(kept: int, before: int, share: float) -> float:
    """The exact binomial test: how likely are so few where ``share`` of all are kept."""
    return sum(math.comb(before, count) * share**count * (1 - share) ** (before - count) for count in range(kept + 1))


@pytest.mark.parametrize("before", [30, 64, 200])
@pytest.mark.parametrize("bound", [FINDS, MISSES])
def test_a_share_is_below_a_bound_only_where_an_exact_test_agrees(before: int, bound: float) -> None:
    """A fortieth on one side on average; at a single count up to 6 % (27 of 30, against 0.97)."""
    for kept in range(before + 1):
        below = highest(kept, before) < bound
        assert below <= (by_chance(kept, before, bound) < 0.07)
        assert below >= (by_chance(kept, before, bound) < 0.005)
