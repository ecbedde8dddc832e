"""The words follow from the numbers, and say no more than they show."""

from __future__ import annotations

import pytest

from fxqat.evaluation.bootstrap import Drift
from fxqat.report.detections import Agreement
from fxqat.report.measurements import Measurements
from fxqat.report.verdict import judge
from fxqat.runtime.verify import Difference


def drift(points: float, low: float, high: float, *, images: int = 128) -> Measurements:
    found = Drift(points=points, low=low, high=high, level=0.95, resamples=1000, images=images)
    return Measurements(drift=found, before=0.36, after=0.36 + points / 100)


@pytest.mark.parametrize(
    ("measured", "level", "headline"),
    [
        (drift(-0.1, -0.4, 0.2), "good", "Within half a point of float"),
        (drift(-0.3, -0.45, -0.1), "good", "Within half a point of float"),
        (drift(-0.3, -1.4, 0.8), "good", "No loss that these images can show"),
        (drift(-0.4, -0.7, -0.1), "care", "Usable, with some loss"),
        (drift(-0.9, -1.6, 0.1), "care", "Usable, with some loss"),
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
        "What runs is what was made: all 1,000 codes in ONNX Runtime equal the reference graph's.",
        "98.0% of all multiply-adds run in integers.",
    )
    other = judge(Measurements(codes=Difference(codes=1000, differing=3, largest=1))).reasons
    assert other == ("3 of 1,000 codes in ONNX Runtime differ from the reference graph's.",)
    assert judge(Measurements()).advice == "Measure it on more images: --data, with labels, before it is used."
