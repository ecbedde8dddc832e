"""What each task predicts, found and drawn: against cases worked out by hand, and against Ultralytics' own."""

from __future__ import annotations

import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fxqat.evaluation.predictor import Predictor
from fxqat.models.families import FAMILIES
from fxqat.models.family import HeadSpec
from fxqat.models.image_size import ImageSize
from fxqat.report.detections import Detection, agreement, iou
from fxqat.report.pictures import BONES, Picture, outlines, picture
from fxqat.report.predictions import covers, predict

NAMES = {0: "cat", 1: "dog"}
IMAGE = torch.zeros(3, 64, 96)


def model(task: str, *outputs: Tensor, **sizes) -> Predictor:
    """A model of a task that always predicts ``outputs``."""
    final = outputs[0] if len(outputs) == 1 else outputs
    spec = HeadSpec(classes=len(NAMES), **sizes)
    return Predictor(name=task, predict=lambda images: final, names=NAMES, family=FAMILIES[task], spec=spec)


def anchors(*rows: list[float]) -> Tensor:
    """(1, C, A)."""
    return torch.tensor(rows).T[None]


def segmenter(coefficient: float = 1.0) -> Predictor:
    """One object in a box of 48 x 32 pixels; the prototype is positive on the left 12 of its 24 columns."""
    prototypes = -torch.ones(1, 1, 16, 24)
    prototypes[..., :12] = 1
    return model("segment", anchors([48, 32, 48, 32, 0.9, 0.1, coefficient]), prototypes, masks=1)


def test_a_mask_is_the_sum_of_prototypes_within_the_box():
    (one,) = predict(segmenter(), IMAGE)
    assert (one.index, one.box, covers(segmenter())) == (0, (24, 16, 72, 48), "masks")
    rows, columns = np.nonzero(one.mask)
    # half of 96 columns; rows and left end from the box
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 47, 24, 47)
    assert one.mask.sum() == 32 * 24


def test_masks_are_ultralytics_own():
    from ultralytics.utils.ops import process_mask

    generator = torch.Generator().manual_seed(3)
    rows = [
        [20.0 + 9 * i, 30, 15 + 4 * i, 20, 0.9 - 0.1 * i, 0.1, *torch.randn(4, generator=generator)] for i in range(5)
    ]
    prototypes = torch.randn(1, 4, 16, 24, generator=generator)
    found = predict(model("segment", anchors(*rows), prototypes, masks=4), IMAGE)
    assert len(found) == 5
    boxes, coefficients = torch.tensor([one.box for one in found]), torch.tensor([row[6:] for row in rows])
    wanted = process_mask(prototypes[0], coefficients, boxes, (64, 96), upsample=True).bool().numpy()
    assert np.array_equal(np.stack([one.mask for one in found]), wanted)


def test_masks_decide_which_objects_are_the_same():
    left, right = predict(segmenter(), IMAGE), predict(segmenter(-1.0), IMAGE)
    assert left[0].box == right[0].box
    assert iou(left[0], right[0]) == 0
    assert iou(left[0], left[0]) == 1
    found = agreement([(left, right)], "masks")
    assert (found.before, found.after, found.kept, found.covers) == (1, 1, 0, "masks")


@pytest.mark.parametrize("numbers", [2, 3])
def test_key_points_are_in_pixels(numbers):
    points = [30.0, 20.0, 0.9, 50.0, 40.0, 0.1]
    chosen = points if numbers == 3 else [30.0, 20.0, 50.0, 40.0]
    (one,) = predict(model("pose", anchors([40, 30, 40, 30, 0.1, 0.8, *chosen]), keypoints=(2, numbers)), IMAGE)
    assert (one.index, one.points.shape) == (1, (2, numbers))
    assert one.points[:, :2].tolist() == [[30, 20], [50, 40]]


def test_boxes_are_turned_about_their_centres():
    (one,) = predict(model("obb", anchors([48, 32, 40, 10, 0.9, 0.1, math.pi / 2]), angles=1), IMAGE)
    assert one.box == pytest.approx((43, 12, 53, 52), abs=1e-4)
    assert {(round(x), round(y)) for x, y in one.corners} == {(43, 12), (53, 12), (53, 52), (43, 52)}
    (same,) = predict(model("obb", anchors([48, 32, 10, 40, 0.9, 0.1, 0.0]), angles=1), IMAGE)
    assert iou(one, same) == pytest.approx(1, abs=1e-4)
    (other,) = predict(model("obb", anchors([48, 32, 40, 10, 0.9, 0.1, 0.0]), angles=1), IMAGE)
    assert iou(one, other) == pytest.approx(100 / 700, abs=1e-4)  # two bars of 40 x 10 that cross


def test_corners_are_ultralytics_own():
    from ultralytics.utils.ops import xywhr2xyxyxyxy

    (one,) = predict(model("obb", anchors([48, 32, 40, 10, 0.9, 0.1, 0.4]), angles=1), IMAGE)
    wanted = xywhr2xyxyxyxy(torch.tensor([48.0, 32, 40, 10, 0.4]))
    assert torch.allclose(torch.tensor(one.corners), wanted, atol=1e-4)


def test_turned_boxes_are_suppressed_by_their_own_overlap():
    """Two bars that cross share their upright boxes' middle, but not each other; a third lies on the first."""
    crossed = [[48, 32, 40, 6, 0.9, 0, 0.7], [48, 32, 40, 6, 0.8, 0, -0.7], [48, 32, 40, 6, 0.7, 0, 0.72]]
    found = predict(model("obb", anchors(*crossed), angles=1), IMAGE)
    assert [round(one.score, 1) for one in found] == [0.9, 0.8]


def test_rows_without_nms_are_taken_as_they_are():
    rows = torch.tensor([[[10.0, 10, 20, 20, 0.9, 1], [10, 10, 20, 20, 0.5, 1], [1, 1, 5, 5, 0.1, 0]]])
    found = predict(model("detect", rows, end2end=True, nms_free=True), IMAGE)
    assert [(one.box, one.index, round(one.score, 1)) for one in found] == [
        ((10, 10, 20, 20), 1, 0.9),
        ((10, 10, 20, 20), 1, 0.5),
    ]


def test_the_class_of_a_whole_image():
    cat, dog = (model("classify", torch.tensor([row])) for row in ([0.8, 0.2], [0.4, 0.6]))
    (one,) = predict(cat, IMAGE)
    assert (one.index, one.box, one.others) == (0, None, ((1, pytest.approx(0.2)),))
    assert covers(cat) == ""
    pairs = [(predict(cat, IMAGE), predict(cat, IMAGE)), (predict(cat, IMAGE), predict(dog, IMAGE))]
    found = agreement(pairs, covers(cat))
    assert (found.images, found.before, found.kept) == (2, 2, 1), "what top-1 counts"


@pytest.fixture
def grey(tmp_path) -> Path:
    """A picture of 60 x 120 pixels: in 64 x 96 it is scaled by 0.8 and has 8 rows of grey above."""
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((60, 120, 3), 128, np.uint8))
    return tmp_path / "grey.png"


def drawn(path: Path, *found: Detection, after: tuple[Detection, ...] = ()) -> Picture:
    return picture(path, (list(found), list(after)), NAMES, ImageSize.of((64, 96)))


def numbers(path: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?[\d.]+", path)]


def test_a_known_box_comes_back_to_its_place(grey):
    # 40..80 x 10..50 in the picture, times 0.8, 8 rows lower
    one = Detection(index=0, score=0.9, box=(32, 16, 64, 48))
    (mark,) = drawn(grey, one).before
    assert (mark.x, mark.y, mark.width, mark.height) == pytest.approx((40, 10, 40, 40))
    assert (mark.name, mark.fate, mark.paths) == ("cat", "lost", {})


def test_masks_and_turned_boxes_are_outlined(grey):
    mask = np.zeros((64, 96), bool)
    mask[16:48, 32:64] = True
    masked = Detection(index=0, score=0.9, box=(32, 16, 64, 48), mask=mask)
    turned = Detection(index=1, score=0.9, box=(40, 24, 56, 40), corners=((48, 24), (56, 32), (48, 40), (40, 32)))
    first, second = drawn(grey, masked, turned).before
    line = np.array(numbers(first.paths["mask"])).reshape(-1, 2)
    # within half a pixel of the input, which is 0.6 of the picture
    assert np.allclose([line.min(0), line.max(0)], [[40, 10], [80, 50]], atol=0.7)
    assert numbers(second.paths["turned"]) == pytest.approx([60, 20, 70, 30, 60, 40, 50, 30])
    assert (first.width, second.width) == (pytest.approx(40), 0), "a turned box has no upright one"


def test_outlines_have_holes():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35], mask[15:25, 15:25] = True, False
    areas = sorted(cv2.contourArea(np.float32(line)) for line in outlines(mask))
    # a contour runs half a pixel inside what it surrounds, and outside a hole
    assert areas == pytest.approx([10 * 10, 30 * 30], rel=0.25)
    assert len(areas) == 2


def test_a_skeleton_joins_what_is_seen(grey):
    points = np.zeros((17, 3), np.float32)
    points[:, 0], points[:, 1], points[:, 2] = 32 + np.arange(17), 16 + np.arange(17), 1.0
    points[16, 2] = 0.1  # an ankle out of sight
    (mark,) = drawn(grey, Detection(index=0, score=0.9, box=(32, 16, 64, 48), points=points)).before
    assert mark.paths["points"].count("M") == 16
    assert mark.paths["bones"].count("M") == len(BONES[17]) - sum(16 in bone for bone in BONES[17])
    assert numbers(mark.paths["points"])[:2] == pytest.approx([40, 10])
    (other,) = drawn(grey, Detection(index=0, score=0.9, box=(32, 16, 64, 48), points=points[:5])).before
    assert set(other.paths) == {"points"}, "of five key points nobody knows the bones"


def test_what_one_model_alone_has_is_marked(grey):
    shared, lost, added = (Detection(index=0, score=0.9, box=(x, 16, x + 16, 32)) for x in (0, 30, 60))
    shown = drawn(grey, shared, lost, after=(shared, added))
    assert [mark.fate for mark in shown.before] == ["kept", "lost"]
    assert [mark.fate for mark in shown.after] == ["kept", "added"]
    assert (shown.kept, shown.found) == (1, {"before": 2, "after": 2})


def test_classes_are_listed(grey):
    cat, dog = (Detection(index=index, score=0.7, others=((1 - index, 0.3),)) for index in (0, 1))
    shown = drawn(grey, cat, after=(dog,))
    assert [(mark.name, mark.fate) for mark in shown.before] == [("cat", "lost"), ("dog", "kept")]
    assert [(mark.name, mark.fate) for mark in shown.after] == [("dog", "added"), ("cat", "kept")]
    assert [(mark.name, mark.fate) for mark in drawn(grey, cat, after=(cat,)).after] == [
        ("cat", "kept"),
        ("dog", "kept"),
    ]
