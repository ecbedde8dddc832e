"""The disagreement of two detectors: nothing where they are the same, and as much as boxes and scores moved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_convert, box_iou

from fxqat.evaluation.disagreement import confident, disagreement, overlap, ratio


def predictions(seed: int, anchors: int = 40) -> torch.Tensor:
    """y (2, 4 + 3, anchors): boxes of 5 to 45 pixels, scores in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(2, 7, anchors, generator=generator)
    y[:, :2] *= 60
    y[:, 2:4] = 5 + 40 * y[:, 2:4]
    return y


@given(seed=st.integers(0, 2**16))
def test_overlap_is_torchvisions(seed: int) -> None:
    a, b = (predictions(seed + one)[0, :4] for one in (0, 1))
    corners = [box_convert(one.T, "cxcywh", "xyxy") for one in (a, b)]
    # both divide sums of a few float32 products
    torch.testing.assert_close(overlap(a, b), box_iou(*corners).diagonal(), rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 2**16))
def test_it_is_zero_for_the_same_and_at_most_one(seed: int) -> None:
    y, other = predictions(seed), predictions(seed + 1)
    first = confident(y)
    lost, weight = disagreement(first, y)
    assert lost == pytest.approx(0, abs=1e-5 * weight)
    lost, weight = disagreement(first, other)
    assert 0 < lost <= weight


def test_it_is_what_boxes_and_scores_lost() -> None:
    y = torch.zeros(1, 6, 3)
    y[0, :4] = torch.tensor([50.0, 50.0, 20.0, 10.0])[:, None]
    y[0, 4] = torch.tensor([0.8, 0.4, 0.05])
    first = confident(y, least=0.1)
    assert first.anchor.tolist() == [0, 1]
    moved = y.clone()
    moved[0, 0, 0] += 10  # half of the box's width: IoU (10 * 10) / (2 * 200 - 100) = 1/3
    moved[0, 4, 1] -= 0.1
    lost, weight = disagreement(first, moved)
    assert weight == pytest.approx(0.8 + 0.4)
    assert lost == pytest.approx(0.8 * (1 - 1 / 3) + 0.4 * 0.1, rel=1e-5)
    assert ratio([(lost, weight), (0.0, weight)]) == pytest.approx(lost / weight / 2)


def test_where_nothing_is_sure_nothing_disagrees() -> None:
    y = torch.zeros(1, 6, 3)
    assert disagreement(confident(y), y) == (0.0, 0.0)
    assert ratio([(0.0, 0.0)]) == 0.0
    assert ratio([]) == 0.0
