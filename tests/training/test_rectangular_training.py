"""Training on images that are no square: whole pictures in the rectangle, labels in their place, the size recorded."""

from __future__ import annotations

import pytest
import torch
from detectors import find_colours
from refusals import refusal

import fxqat
from fxqat.models.image_size import ImageSize
from fxqat.training.config import check_section, configure, configured

SIZE = (64, 96)
PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}  # colours stay what find_colours looks for


@pytest.mark.parametrize("size", [SIZE, (96, 64)])
@pytest.mark.parametrize("mode", ["train", "val"])
def test_labels_lie_on_what_they_name(trainer, size, mode):
    run = trainer("x", imgsz=size, **PLAIN)
    samples = run.build_dataset(run.data[mode], mode, 6)
    assert len(samples) == 12
    height, width = size
    for sample in (samples[index] for index in range(len(samples))):
        assert sample["img"].shape == (3, height, width)
        seen = find_colours(sample["img"][None] / 255)
        for kind, box in zip(sample["cls"].flatten().long().tolist(), sample["bboxes"], strict=True):
            wanted = box * torch.tensor([width, height, width, height])
            # edges are mixed with grey where a picture is scaled, and a border pixel may lack the colour
            assert torch.allclose(seen[0, :4, kind], wanted, atol=2.0)


def test_a_training_sees_and_records_the_size(trainer):
    run, shapes = trainer("x", imgsz=SIZE, epochs=1), set()
    before = run.preprocess_batch

    def noting(batch):
        found = before(batch)
        shapes.add(tuple(found["img"].shape[2:]))
        return found

    run.preprocess_batch = noting
    run.train()
    trained = run.latest()
    assert shapes == {SIZE}
    assert trained.recipe.training["config"]["imgsz"] == [*SIZE]
    assert trained.imgsz == ImageSize.of(SIZE)
    assert run.validator.dataloader.dataset[0]["img"].shape == (3, *SIZE)


@pytest.mark.parametrize("name", ["mosaic", "mixup", "close_mosaic"])
def test_what_needs_squares_is_refused(trainer, name):
    words = f"imgsz 64x96: is no square; expected one for training with {name}; use 96"
    assert refusal(trainer, "x", imgsz=SIZE, **{name: 1}) == words


@pytest.mark.parametrize("form", ["64,96", "64x96", [64, 96], SIZE])
def test_every_form_is_taken(form):
    plan = configure("d.yaml", {"imgsz": form}, "p.yaml", {})
    assert plan.imgsz == ImageSize.of(SIZE)
    assert (plan.overrides()["imgsz"], plan.summary()["imgsz"]) == (96, [64, 96])
    assert configure("d.yaml", None, "", {"imgsz": form}) == plan


def test_a_policy_with_no_size():
    words = "imgsz wide: is no size of an image; expected height and width in pixels, such as 640, 384,640 or 384x640"
    assert refusal(check_section, {"imgsz": "wide"}, "p.yaml") == f"p.yaml: {words}"


def test_the_size_that_was_calibrated_is_the_size_of_training(three, tiny_data, tmp_path):
    qat = fxqat.calibrate(fxqat.prepare(three, "w8a8")[0], tiny_data, imgsz=SIZE, images_limit=2)
    fxqat.save(qat, tmp_path / "x.fxqat")
    assert configured(fxqat.load(tmp_path / "x.fxqat"), str(tiny_data), {}).imgsz == ImageSize.of(SIZE)
