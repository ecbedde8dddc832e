"""What the numbers come to, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxqat.report.actions import FLOAT
from fxqat.report.agreement_levels import agreement_level
from fxqat.report.decision import ENOUGH_IMAGES, ENOUGH_OBJECTS, Case, decide
from fxqat.report.detections import Agreement
from fxqat.report.levels import level_of
from fxqat.report.measurements import Measurements
from fxqat.runtime.bound import BOUND
from fxqat.runtime.verify import Difference
from fxqat.sensitivity.error_report import ErrorReport, SiteError


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the numbers come to.

    Attributes:
        level: good, care, bad or open.
        headline: the level in words.
        reasons: a sentence for each measurement.
        action: what to do, one of those of ``fxqat.report.decision.RULES``.
        advice: the same in words.
        sites: where the action is about layers, as a policy names them.
        images: with labels, that would settle what is open; 0 where nothing is.
        at_hand: whether the data set has so many.
    """

    level: str
    headline: str
    reasons: tuple[str, ...]
    action: str
    advice: str
    sites: tuple[str, ...] = ()
    images: int = 0
    at_hand: bool = False


def judge(found: Measurements) -> Verdict:
    """By the task's metric where it was measured, else by agreement, else not at all."""
    level, headline = _level(found)
    case = Case(level=level, found=found)
    action, advice = decide(case)
    sites = tuple(case.sites) if action == FLOAT else ()
    return Verdict(
        level=level,
        headline=headline,
        reasons=tuple(_reasons(case)),
        action=action,
        advice=advice,
        sites=sites,
        images=case.images,
        at_hand=case.at_hand,
    )


def _level(found: Measurements) -> tuple[str, str]:
    if found.computed_otherwise:
        return "bad", "The file does not compute what was calibrated"
    if found.drift is not None and found.drift.images >= ENOUGH_IMAGES:
        level = level_of(found.drift)
        return level.name, level.headline
    if found.agreement is not None and found.agreement.before >= ENOUGH_OBJECTS:
        return agreement_level(found.agreement)
    measured = found.drift is not None or found.agreement is not None
    return "open", "Too few images for a verdict" if measured else "Not measured yet"


def _reasons(case: Case) -> Iterator[str]:
    found = case.found
    if found.drift is not None and found.before is not None and found.after is not None:
        drift = found.drift
        yield (
            f"{found.metric} goes from {found.before:.4f} to {found.after:.4f} on {drift.images} images: "
            f"{drift.points:+.2f} points, between {drift.low:+.2f} and {drift.high:+.2f} with {drift.level:.0%} "
            "confidence."
        )
    if case.level == "good" and case.images:
        yield f"About {case.images:,} images would show whether the loss is below half a point."
    if (same := found.agreement) is not None and same.before:
        yield _same_objects(same) if same.covers else _same_classes(same)
    if found.codes is not None:
        yield _same_codes(found.codes, found.runtime)
    if (fast := found.latency) is not None:
        yield (
            f"One image takes {fast.median:.1f} ms in {found.runtime}: {fast.speed:.2f} times as fast as float, "
            f"between {fast.speed_low:.2f} and {fast.speed_high:.2f}."
        )
    if found.integer_share:
        yield f"{found.integer_share:.1%} of all multiply-adds run in integers."


def _same_objects(same: Agreement) -> str:
    return (
        f"Of {same.before} objects that float finds on {same.images} images, {same.kept} are found again "
        f"({same.kept / same.before:.1%}), {same.added} more are found by the quantized model alone; "
        f"scores change by {same.shift:+.3f} on average, {same.covers} overlap by {same.overlap:.1%}."
    )


def _same_classes(same: Agreement) -> str:
    return (
        f"Of {same.images} images, {same.kept} keep the class that float gives them ({same.kept / same.before:.1%}); "
        f"its probability changes by {same.shift:+.3f} on average."
    )


def _same_codes(codes: Difference, runtime: str) -> str:
    if not codes.differing:
        return (
            f"The file computes what was calibrated: all {codes.codes:,} integers in {runtime} equal the reference's."
        )
    told = f"{codes.differing:,} of {codes.codes:,} integers in {runtime} differ from the reference's"
    if codes.share > BOUND:
        return f"{told}."
    return f"{told}, by {codes.largest} at most: behind operations in float, which round otherwise now and then."


def worst(errors: ErrorReport, count: int = 8) -> Sequence[SiteError]:
    """The sites that cause most of the output's error."""
    return [row for row in errors.sorted("share") if row.share > 0][:count]
