"""What to do with a quantized model: a table of rules over what was measured; the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fxqat.report.actions import CORRECT, FLOAT, MEASURE, RUNTIME, SEARCH, SHIP, TARGET, TRAIN
from fxqat.report.agreement_levels import objects_needed
from fxqat.report.detections import Agreement
from fxqat.report.levels import images_needed
from fxqat.report.measurements import Measurements

ENOUGH_IMAGES, ENOUGH_OBJECTS = 50, 30  # fewer, and the luck of the draw decides
HALF = 0.5  # of the output's error
FEW = 6  # sites at most that are worth naming: more of them in float, and the file is hardly faster


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a decision rests on.

    Attributes:
        level: good, care, bad or open, see ``fxqat.report.verdict``.
        found: what was measured.
    """

    level: str
    found: Measurements

    @property
    def sites(self) -> Sequence[str]:
        """The fewest sites, as a policy names them, that cause HALF of the output's error; none where it was not
        measured."""
        shares: dict[str, float] = {}
        for row in self.found.errors.rows if self.found.errors else ():
            shares[row.decided] = shares.get(row.decided, 0.0) + row.share
        chosen, total = list[str](), 0.0
        for site, share in sorted(shares.items(), key=lambda item: -item[1]):
            if total >= HALF or share <= 0:
                break
            chosen.append(site)
            total += share
        return chosen

    @property
    def images(self) -> int:
        """With labels, that would settle what is open; 0 where nothing is, or no metric was measured."""
        drift = self.found.drift
        if drift is None:
            return 0
        if drift.images >= ENOUGH_IMAGES:
            return images_needed(drift)
        return ENOUGH_IMAGES if self.level == "open" else 0

    @property
    def at_hand(self) -> bool:
        """Whether the data set has so many."""
        return 0 < self.images <= self.found.pool

    @property
    def slower(self) -> bool:
        """Whether the file was timed here and is surely no faster than float."""
        return self.found.latency is not None and self.found.latency.speed_high < 1


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """A line of the table: an action, when it is right, and how it is said."""

    action: str
    applies: Callable[[Case], bool]
    words: Callable[[Case], str]


def _unmeasured(case: Case) -> str:
    drift, same = case.found.drift, case.found.agreement
    if drift is None and same is None:
        return "Measure it on images before it is used: --data, best with labels."
    if drift is not None and drift.images >= ENOUGH_IMAGES:
        return (
            f"Validate it on more images before it is used: on about {case.images:,} the interval would be narrower "
            f"than half a point{_there(case)}.{_without_more(case)}"
        )
    return (
        f"Measure it on more images than these before it is used: {ENOUGH_IMAGES} with labels, or, without labels, "
        f"{_unlabelled(same)}."
    )


def _unlabelled(same: Agreement | None) -> str:
    count = objects_needed(same) if same is not None and same.before >= ENOUGH_OBJECTS else ENOUGH_OBJECTS
    return f"so many that float finds {count:,} objects on them" if same is None or same.covers else f"{count:,}"


def _without_more(case: Case) -> str:
    """What a loss as large as was measured asks for, should these be all images that there are."""
    if case.at_hand:
        return ""
    _, words = decide(replace(case, level="care"))
    return f" If there are no more: {words[0].lower()}{words[1:]}"


def _there(case: Case) -> str:
    return f" ({case.found.pool:,} are there)" if case.at_hand else ""


def _shipped(case: Case) -> str:
    sites = case.sites
    rest = f" Should more be needed: {sites[0]} has the largest part of the error that is left." if sites else ""
    return f"Ship it.{rest}"


def _floated(case: Case) -> str:
    sites = case.sites
    return f"Keep these layers in float: {', '.join(sites)}. They cause half of the output's error."


RULES: tuple[DecisionRule, ...] = (
    DecisionRule(
        action=RUNTIME,
        applies=lambda case: case.found.computed_otherwise,
        words=lambda case: (
            "Do not use the file yet: the runtime computes other integers than the calibrated model. "
            + (case.found.inexact or "fxqat verify names the first tensor that differs.")
        ),
    ),
    DecisionRule(action=MEASURE, applies=lambda case: case.level == "open", words=_unmeasured),
    DecisionRule(
        action=TARGET,
        applies=lambda case: case.level == "good" and case.slower,
        words=lambda case: (
            "As accurate as float, but no faster on this processor: choose another target, or keep float."
        ),
    ),
    DecisionRule(action=SHIP, applies=lambda case: case.level == "good", words=_shipped),
    DecisionRule(action=FLOAT, applies=lambda case: 0 < len(case.sites) <= FEW, words=_floated),
    DecisionRule(
        action=CORRECT,
        applies=lambda case: not case.found.trained and not case.found.corrected,
        words=lambda case: (
            "Correct the biases: the error comes from everywhere, and this takes one more calibration and no labels."
        ),
    ),
    DecisionRule(
        action=TRAIN,
        applies=lambda case: not case.found.trained,
        words=lambda case: "Train it: the error comes from everywhere, which training with the quantizers on repairs.",
    ),
    DecisionRule(
        action=SEARCH,
        applies=lambda case: True,
        words=lambda case: "Search a policy: training was not enough, and no few layers cause the error.",
    ),
)


def decide(case: Case) -> tuple[str, str]:
    """The action of the first rule that applies, and its words."""
    rule = next(rule for rule in RULES if rule.applies(case))
    return rule.action, rule.words(case)
