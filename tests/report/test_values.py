"""Histograms and plots count everything once."""

from __future__ import annotations

import pytest
import torch

from fxqat.models.detector import Detector
from fxqat.report.plots import profile, spark
from fxqat.report.values import BINS, Spread, spreads
from fxqat.sensitivity.error_report import analyze


def test_every_value_is_counted_once_and_the_model_stays(calibrated: Detector, images: torch.Tensor) -> None:
    before = calibrated(images)[0]
    found = spreads(calibrated, [images[:1], images[1:2]])
    assert torch.equal(calibrated(images)[0], before)
    stem = found["model.0.conv"]
    assert sum(stem.counts) == 2 * 16 * 32 * 32  # images, channels, 64 px at stride 2
    assert len(stem.counts) == BINS
    assert stem.low < stem.first < stem.last < stem.high
    assert found["images"].first == 0
    assert found["images"].last == pytest.approx(1)


def test_a_spark_shades_the_range_and_names_its_ends() -> None:
    spread = Spread(counts=(0, 10, 100, 0), low=-1.0, high=3.0, first=0.0, last=2.0)
    drawn = str(spark(spread))
    assert 'class="range" x="33.0" width="66.0"' in drawn
    assert "codes cover 0 to 2" in drawn
    assert "NaN" not in str(spark(Spread(counts=(0, 0), low=-1.0, high=1.0, first=-0.5, last=0.5)))


def test_the_profile_has_a_dot_for_each_quantized_tensor(calibrated: Detector, images: torch.Tensor) -> None:
    rows = analyze(calibrated, [images[:1]]).rows
    drawn = str(profile(rows))
    assert drawn.count('class="own"') == sum(row.sqnr is not None for row in rows)
    assert drawn.count('class="weight"') == sum(row.weight_sqnr is not None for row in rows)
    assert drawn.count('class="accumulated"') == 1
