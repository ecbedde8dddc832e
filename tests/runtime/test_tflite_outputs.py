"""Final outputs as .tflite files hold them, read back to what the family predicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refusals import refusal

from fxqat.models.families import FAMILIES
from fxqat.models.family import HeadSpec
from fxqat.runtime.tflite.tflite_outputs import Outputs, head_of

SHAPE = (1, 3, 32, 64)  # 32 pixels high, 64 wide
SPECS = {
    "detect": HeadSpec(classes=2),
    "segment": HeadSpec(classes=2, masks=5),
    "pose": HeadSpec(classes=1, keypoints=(2, 3)),
    "obb": HeadSpec(classes=2, angles=1),
    "classify": HeadSpec(classes=3, kind="Classify", bins=1),
}


def final(task, **options):
    return FAMILIES[task].final(SPECS[task] if not options else HeadSpec(**options))


def read(outputs, *arrays, is_last=True):
    return Outputs(final=outputs, shape=SHAPE, is_last=is_last).read(arrays)


def parts(task):
    """Everything a half, one anchor."""
    return np.full((1, final(task)[0].size, 1), 0.5, np.float32)


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("detect", [32, 16, 32, 16, 0.5, 0.5]),
        ("segment", [32, 16, 32, 16, 0.5, 0.5, *[0.5] * 5]),
        ("pose", [32, 16, 32, 16, 0.5, 32, 16, 0.5, 32, 16, 0.5]),
        ("obb", [32, 16, 32, 16, 0.5, 0.5, 0.5]),
    ],
)
def test_lengths_are_pixels_and_nothing_else_is_changed(task, wanted):
    maps = [np.zeros((1, 4, 4, 5), np.float32)] if task == "segment" else []
    found, *_ = read(final(task), parts(task), *maps)
    assert found[0, :, 0].tolist() == wanted


def test_key_points_without_visibility():
    outputs = final("pose", classes=1, keypoints=(2, 2))
    (found,) = read(outputs, np.full((1, 9, 1), 0.5, np.float32))
    assert found[0, 5:, 0].tolist() == [32, 16, 32, 16]


def test_rows_of_a_head_without_nms():
    outputs = final("pose", classes=1, keypoints=(1, 3), end2end=True, nms_free=True)
    rows = np.full((1, 1, 9), 0.5, np.float32)
    assert read(outputs, rows)[0][0, 0].tolist() == [32, 16, 32, 16, 0.5, 0.5, 32, 16, 0.5]
    assert read(outputs, rows, is_last=False)[0][0, 0].tolist() == [0.5] * 9, "Ultralytics' own give pixels"


def test_maps_have_their_channels_first_and_stand_last():
    maps = np.arange(1 * 2 * 3 * 5, dtype=np.float32).reshape(1, 2, 3, 5)
    _, found = read(final("segment"), maps, parts("segment"))
    assert torch.equal(torch.from_numpy(found), torch.from_numpy(maps).permute(0, 3, 1, 2))
    _, kept = read(final("segment"), parts("segment"), found, is_last=False)
    assert kept is found


def test_classes_are_what_they_are():
    scores = np.float32([[0.25, 0.5, 0.25]])
    assert np.array_equal(read(final("classify"), scores)[0], scores)


class File:
    """Tensors of a .tflite file by the shapes of its inputs, and the metadata of a detector."""

    def __init__(self, *shapes):
        self.shapes, self.metadata = shapes, {"task": "detect", "names": {"0": "a"}}
        self.graph = SimpleNamespace(inputs=list(range(len(shapes))), outputs=[])

    def shape(self, index):
        return self.shapes[index]


def test_a_file_of_one_image():
    assert head_of(Path("x.tflite"), File((1, 32, 64, 3))).names == {0: "a"}
    assert head_of(Path("x.tflite"), File((1, 3, 32, 64))).names == {0: "a"}


@pytest.mark.parametrize("shapes", [(), ((1, 32, 64, 3), (1,)), ((1, 32, 64),), ((1, 32, 64, 4),), ((),)])
def test_a_file_that_takes_anything_but_images(shapes):
    """Whoever opens it: verify, val or a report."""
    line = f"x.tflite: takes {list(shapes)}; expected one image input, (N, H, W, 3) or (N, 3, H, W)"
    assert refusal(head_of, Path("x.tflite"), File(*shapes)) == line
