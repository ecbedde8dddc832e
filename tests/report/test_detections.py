"""Detection and agreement against cases worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fxqat.evaluation.predictor import Predictor
from fxqat.report.detections import Detection, agreement, iou, paired
from fxqat.report.predictions import predict


def found(x: float, score: float = 0.9, index: int = 0, size: float = 10.0) -> Detection:
    return Detection(box=(x, 0.0, x + size, size), index=index, score=score)


def test_iou_of_boxes_shifted_by_half() -> None:
    assert iou(found(0), found(0)) == 1
    assert iou(found(0), found(5)) == pytest.approx(50 / 150)
    assert iou(found(0), found(20)) == 0
    assert iou(found(0, size=0), found(0, size=0)) == 0


def test_each_box_is_paired_once_and_within_its_class() -> None:
    before = [found(0), found(1), found(50, index=1)]
    after = [found(0.5, score=0.8), found(50, index=2)]
    pairs = paired(before, after)
    assert [other for _, other in pairs] == [after[0], None, None]


def test_agreement_counts_shift_and_overlap() -> None:
    same = agreement([([found(0), found(40)], [found(0, score=0.7)]), ([], [found(3)])])
    assert (same.images, same.before, same.after, same.kept, same.added) == (2, 2, 2, 1, 1)
    assert same.shift == pytest.approx(-0.2)
    assert same.overlap == 1
    assert agreement([]).kept == 0


def test_agreements_add_up() -> None:
    pairs = [([found(0), found(40)], [found(0, score=0.7)]), ([], [found(3)]), ([found(9)], [found(8, score=0.8)])]
    total = agreement([])
    for pair in pairs:
        total += agreement([pair])
    whole = agreement(pairs)
    assert (total.images, total.before, total.after, total.kept) == (3, 3, 3, 2)
    assert (whole.images, whole.before, whole.after, whole.kept) == (3, 3, 3, 2)
    assert (total.shift, total.overlap) == pytest.approx((whole.shift, whole.overlap))


def test_predict_keeps_the_best_of_overlapping_boxes() -> None:
    def three_boxes(images: Tensor) -> Tensor:
        rows = [[10, 10, 8, 8, 0.9, 0.1], [10.5, 10, 8, 8, 0.8, 0.1], [30, 30, 4, 6, 0.2, 0.6], [5, 5, 2, 2, 0.1, 0.2]]
        return torch.tensor(rows).T[None]

    model = Predictor(name="three boxes", predict=three_boxes, names={0: "a", 1: "b"})
    detections = predict(model, torch.zeros(3, 64, 64))
    assert [(one.index, round(one.score, 2)) for one in detections] == [(0, 0.9), (1, 0.6)]
    assert detections[1].box == (28, 27, 32, 33)
