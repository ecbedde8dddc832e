"""How good a quantized model is, by the share of the float model's detections that it has too; needs no labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fxqat.report.detections import Agreement

FINDS, MISSES = 0.97, 0.9  # a share down to FINDS is no loss to speak of, one below MISSES is to be mended
NORMAL = 1.96  # standard deviations on either side that hold 95 %


@dataclass(frozen=True, kw_only=True)
class Words:
    """Headlines, by level; ``open`` where chance explains what is lost."""

    good: str
    care: str
    bad: str
    open: str


OBJECTS = Words(
    good="Finds what float finds",
    care="Finds most of what float finds",
    bad="Misses what float finds",
    open="Too few objects to tell a loss from chance",
)
CLASSES = Words(
    good="Gives the class that float gives",
    care="Gives most classes that float gives",
    bad="Gives other classes than float",
    open="Too few images to tell a loss from chance",
)


def agreement_level(found: Agreement) -> tuple[str, str]:
    """The level (good, care, bad or open) and its headline.

    A share below FINDS or MISSES is a loss only where its interval is below it, too.
    """
    name = _name(found.kept / found.before, highest(found.kept, found.before))
    return name, getattr(OBJECTS if found.covers else CLASSES, name)


def _name(share: float, high: float) -> str:
    if share >= FINDS:
        return "good"
    if high >= FINDS:
        return "open"
    return "care" if high >= MISSES else "bad"


def highest(kept: int, of: int) -> float:
    """The upper end of the 95 % interval of the share ``kept`` of so many, each by itself (Wilson, Probable inference,
    the law of succession, and statistical inference, JASA 22, 1927)."""
    share, square = kept / of, NORMAL**2 / of
    middle = share + square / 2
    return (middle + NORMAL * math.sqrt((share * (1 - share) + square / 4) / of)) / (1 + square)


def objects_needed(found: Agreement) -> int:
    """About how many detections of float would tell, where the level is open: as many as make the interval of this
    share narrower than 1 - FINDS, so that it cannot hold both no loss and FINDS."""
    share = found.kept / found.before
    return math.ceil(share * (1 - share) * (2 * NORMAL / (1 - FINDS)) ** 2)
