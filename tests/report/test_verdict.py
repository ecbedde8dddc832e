"""The words follow from the numbers, and say no more than they show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fxqat.evaluation.bootstrap import Drift
from fxqat.report.actions import RUNTIME, SHIP
from fxqat.report.detections import Agreement
from fxqat.report.measurements import Measurements
from fxqat.report.verdict import judge
from fxqat.runtime.verify import Difference


def drift(points: float, low: float, high: float, *, images: int = 128) -> Measurements:
    found = Drift(points=points, low=low, high=high, level=0.95, resamples=1000, images=images, changed=images)
    return Measurements(drift=found, before=0.36, after=0.36 + points / 100)


@pytest.mark.parametrize(
    ("measured", "level", "headline"),
    [
        (drift(-0.1, -0.4, 0.2), "good", "Within half a point of float"),
        (drift(-0.3, -0.45, -0.1), "good", "Within half a point of float"),
        (drift(-0.3, -1.4, 0.8), "good", "No loss that these images can show"),
        (drift(-0.4, -0.7, -0.1), "care", "Usable, with some loss"),
        (drift(-0.9, -1.6, 0.1), "open", "These images cannot tell a loss from chance"),
        (drift(-3.0, -4.0, -2.0), "bad", "Quantization costs accuracy"),
        (Measurements(agreement=Agreement(images=4, before=100, after=99, kept=98)), "good", "Finds what float finds"),
        (
            Measurements(agreement=Agreement(images=4, before=100, after=95, kept=92)),
            "care",
            "Finds most of what float finds",
        ),
        (Measurements(agreement=Agreement(images=4, before=100, after=70, kept=60)), "bad", "Misses what float finds"),
        (Measurements(agreement=Agreement(images=4)), "open", "Too few images for a verdict"),
        (Measurements(agreement=Agreement(images=4, before=29, kept=29)), "open", "Too few images for a verdict"),
        (drift(0.0, 0.0, 0.0, images=49), "open", "Too few images for a verdict"),
        (Measurements(), "open", "Not measured yet"),
    ],
)
def test_level_and_headline(measured: Measurements, level: str, headline: str) -> None:
    verdict = judge(measured)
    assert (verdict.level, verdict.headline) == (level, headline)


def test_reasons_carry_the_numbers() -> None:
    reasons = " ".join(judge(drift(-0.3, -1.4, 0.8)).reasons)
    assert "from 0.3600 to 0.3570 on 128 images: -0.30 points, between -1.40 and +0.80 with 95% confidence" in reasons
    same = judge(Measurements(codes=Difference(codes=1000), integer_share=0.98)).reasons
    assert same == (
        "The file computes what was calibrated: all 1,000 integers in ONNX Runtime equal the reference's.",
        "98.0% of all multiply-adds run in integers.",
    )
    other = judge(Measurements(codes=Difference(codes=1000, differing=3, largest=1))).reasons
    assert other == ("3 of 1,000 integers in ONNX Runtime differ from the reference's.",)


def test_integers_behind_float_operations_may_round_otherwise_now_and_then() -> None:
    """A millionth of them at most; more is another model, however good its numbers."""
    good = drift(-0.1, -0.4, 0.2)
    rare = judge(replace(good, codes=Difference(codes=2_000_000, differing=2, largest=1)))
    assert (rare.level, rare.action) == ("good", SHIP)
    assert rare.reasons[-1] == (
        "2 of 2,000,000 integers in ONNX Runtime differ from the reference's, by 1 at most: behind operations in "
        "float, which round otherwise now and then."
    )
    often = judge(replace(good, codes=Difference(codes=2_000_000, differing=3, largest=1)))
    assert (often.level, often.headline) == ("bad", "The file does not compute what was calibrated")
    assert often.action == RUNTIME


def test_what_is_open_says_how_many_images_settle_it() -> None:
    assert judge(Measurements()).advice == "Measure it on images before it is used: --data, best with labels."
    few = Measurements(agreement=Agreement(images=3, before=10, after=10, kept=10))
    assert judge(few).advice == (
        "Measure it on more images than these before it is used: 50 with labels, or, without labels, so many that "
        "float finds 30 objects on them."
    )
