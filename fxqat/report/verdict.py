"""What the numbers come to, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxqat.evaluation.bootstrap import Drift
from fxqat.report.detections import Agreement
from fxqat.runtime.verify import Difference
from fxqat.sensitivity.error_report import ErrorReport, SiteError

FREE, DEAR = 0.5, 1.0  # points of mAP50-95: a loss below FREE is none to speak of, one above DEAR is to be mended
ENOUGH_IMAGES, ENOUGH_OBJECTS = 50, 30  # fewer, and the luck of the draw decides
FINDS, MISSES = 0.97, 0.9  # the same as shares of the float detector's detections


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that was measured; None where it was not.

    Attributes:
        drift: of mAP50-95 against float, points.
        before: mAP50-95 of the float model, 0..1.
        after: of the quantized one.
        agreement: on the images.
        codes: of the INT8 reference graph against the exported file in its runtime.
        inexact: why that runtime on this machine cannot compute the file exactly.
        runtime: its name in words.
        errors: site by site.
        integer_share: multiply-adds in integers as a part of all.
        size: of the exported file, as a part of the float weights' in 32 bits.
    """

    drift: Drift | None = None
    before: float | None = None
    after: float | None = None
    agreement: Agreement | None = None
    codes: Difference | None = None
    inexact: str | None = None
    runtime: str = "ONNX Runtime"
    errors: ErrorReport | None = None
    integer_share: float = 0.0
    size: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One of good, care, bad and open; a headline; a word of advice where there is one."""

    level: str
    headline: str
    reasons: tuple[str, ...]
    advice: str


def judge(found: Measurements) -> Verdict:
    """By mAP where it was measured, else by agreement, else not at all."""
    level, headline = _level(found)
    return Verdict(level=level, headline=headline, reasons=tuple(_reasons(found)), advice=_advice(found, level))


def _level(found: Measurements) -> tuple[str, str]:
    if found.drift is not None and found.drift.images >= ENOUGH_IMAGES:
        return _by_drift(found.drift)
    if found.agreement is not None and found.agreement.before >= ENOUGH_OBJECTS:
        return _by_agreement(found.agreement)
    measured = found.drift is not None or found.agreement is not None
    return "open", "Too few images for a verdict" if measured else "Not measured yet"


def _by_drift(drift: Drift) -> tuple[str, str]:
    if drift.high < -DEAR:
        return "bad", "Quantization costs accuracy"
    if drift.low >= -FREE:
        return "good", "Within half a point of float"
    if drift.points >= -FREE and drift.high >= 0:
        return "good", "No loss that these images can show"
    return "care", "Usable, with some loss"


def _by_agreement(found: Agreement) -> tuple[str, str]:
    share = found.kept / found.before
    if share >= FINDS:
        return "good", "Finds what float finds"
    return ("care", "Finds most of what float finds") if share >= MISSES else ("bad", "Misses what float finds")


def _reasons(found: Measurements) -> Iterator[str]:
    if found.drift is not None and found.before is not None and found.after is not None:
        drift = found.drift
        yield (
            f"mAP50-95 goes from {found.before:.4f} to {found.after:.4f} on {drift.images} images: {drift.points:+.2f} "
            f"points, between {drift.low:+.2f} and {drift.high:+.2f} with {drift.level:.0%} confidence."
        )
    if (same := found.agreement) is not None and same.before:
        yield (
            f"Of {same.before} objects that float finds on {same.images} images, {same.kept} are found again "
            f"({same.kept / same.before:.1%}), {same.added} it finds alone; "
            f"scores move by {same.shift:+.3f} in the mean, boxes overlap by {same.overlap:.1%}."
        )
    if found.codes is not None:
        yield _same_codes(found.codes, found.runtime)
    if found.integer_share:
        yield f"{found.integer_share:.1%} of all multiply-adds run in integers."


def _same_codes(codes: Difference, runtime: str) -> str:
    if not codes.differing:
        return f"What runs is what was made: all {codes.codes:,} codes in {runtime} equal the reference graph's."
    return f"{codes.differing:,} of {codes.codes:,} codes in {runtime} differ from the reference graph's."


def worst(errors: ErrorReport, count: int = 8) -> Sequence[SiteError]:
    """The sites that cause most of the output's error."""
    return [row for row in errors.sorted("share") if row.share > 0][:count]


def _advice(found: Measurements, level: str) -> str:
    if level == "open" and found.agreement is not None:
        return f"Give more images: --val from {ENOUGH_IMAGES} on with a labelled data set, or --images."
    if level == "open":
        return "Give --data: the report then measures the error at every site and shows detections."
    if found.codes is not None and found.codes.differing:
        why = found.inexact or "run fxqat verify to see where they begin to differ."
        return f"The runtime computes other codes than the model, so look at it before any layer: {why}"
    if found.errors is None or not (rows := worst(found.errors, 1)):
        return ""
    row = rows[0]
    if level == "good":
        return f"Should more be needed: {row.site} causes {row.share:.0%} of the error that is left."
    return f"Begin at {row.site}: it causes {row.share:.0%} of the output's error. Give it more bits, or float: true."
