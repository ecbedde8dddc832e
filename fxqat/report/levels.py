"""How good a quantized model is, by the interval of the difference from float in the metric of its task.

A claim of a loss, or of none, needs an interval that leaves no other reading. Half a point is the width that settles
it: an interval narrower than that cannot hold both no loss and a loss that is to be mended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fxqat.evaluation.bootstrap import Drift

# Points of the task's metric: a loss below FREE is none to speak of, one above DEAR is to be mended.
FREE, DEAR = 0.5, 1.0
# Images that must have changed before their interval is believed: five changes that all go one way come by chance once
# in 16 times, six once in 32 (the two-sided sign test, 2 * 0.5 ** n, of which 0.05 lies between).
CHANGED = 6
# Images without a change from which fewer than FREE percent of all change (95 %): the rule of three, (1 - p) ** n
# = 0.05 (Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249, 1983).
UNCHANGED = math.ceil(3 / (FREE / 100))


@dataclass(frozen=True, kw_only=True)
class Level:
    """A line of the table: good, care, bad or open; how it is said, and when it is so.

    Attributes:
        name: the level.
        headline: the level in words.
        settled: whether the images show it, so that more of them are not needed.
        applies: whether it is so.
    """

    name: str
    headline: str
    settled: bool
    applies: Callable[[Drift], bool]


def _believed(drift: Drift) -> bool:
    return drift.changed >= CHANGED


LEVELS: tuple[Level, ...] = (
    Level(
        name="bad",
        headline="Quantization costs accuracy",
        settled=True,
        applies=lambda drift: _believed(drift) and drift.high < -DEAR,
    ),
    Level(
        name="good",
        headline="Within half a point of float",
        settled=True,
        applies=lambda drift: _believed(drift) and drift.low >= -FREE,
    ),
    Level(
        name="care",
        headline="Usable, with some loss",
        settled=True,
        applies=lambda drift: _believed(drift) and drift.high < 0,
    ),
    Level(
        name="good",
        headline="No loss that these images can show",
        settled=False,
        applies=lambda drift: drift.points >= -FREE,
    ),
    Level(
        name="open",
        headline="These images cannot tell a loss from chance",
        settled=False,
        applies=lambda drift: True,
    ),
)


def level_of(drift: Drift) -> Level:
    """The first level of the table that applies."""
    return next(level for level in LEVELS if level.applies(drift))


def images_needed(drift: Drift) -> int:
    """About how many images would settle what those of ``drift`` leave open, two digits of it; 0 where they settle it.

    With so many the interval is narrower than FREE, and at the rate of these images CHANGED of them have changed.
    """
    level = level_of(drift)
    if level.settled:
        return 0
    wanted = max(drift.images_for(FREE), 0 if _believed(drift) else UNCHANGED)
    if level.name == "open":
        wanted = max(wanted, math.ceil(drift.images * CHANGED / max(drift.changed, 1)), drift.images + 1)
    return _two_digits(wanted) if wanted > drift.images else 0


def _two_digits(count: int) -> int:
    """``count`` rounded up to two digits and zeros."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit
