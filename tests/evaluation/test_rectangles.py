"""Images that are no square: a known box comes back to its place, and accuracy is what Ultralytics' validator says."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectors import NAMES, find_colours, shifted, write_onnx
from refusals import refusal
from small_networks import write

import fxqat
from fxqat.data.images import load_image
from fxqat.evaluation.accuracy import evaluate
from fxqat.evaluation.comparison import usual_size
from fxqat.evaluation.latency import measure
from fxqat.evaluation.predictor import Predictor, from_onnx
from fxqat.models.image_size import ImageSize

SIZES = ((64, 96), (96, 64), (64, 160))


def theirs(data: Path, split: str, size: tuple[int, int], predict) -> dict[str, float]:
    """What Ultralytics' validator measures with its own data set, scaling, matching and metrics; only the forward is
    ours, since it would want an AutoBackend."""
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.models.yolo.detect import DetectionValidator

    args = {"rect": False, "workers": 0, "task": "detect", "plots": False}
    validator = DetectionValidator(save_dir=data.parent / "runs", args=args)
    validator.args.imgsz = list(size)  # as for a file that says so in its metadata
    validator.training, validator.device, validator.stride = False, torch.device("cpu"), 32
    validator.data = check_det_dataset(str(data))
    validator.dataloader = validator.get_dataloader(validator.data[split], 4)
    validator.init_metrics(type("Network", (), {"names": NAMES, "end2end": False}))
    for batch in map(validator.preprocess, validator.dataloader):
        validator.update_metrics(validator.postprocess(predict(batch["img"])), batch)
    return validator.get_stats()


@pytest.mark.parametrize("size", SIZES)
def test_accuracy_is_the_validators(tiny_data, tmp_path, size):
    shutil.copytree(tiny_data.parent, tmp_path / "copy")  # Ultralytics writes a cache beside the labels
    wanted = theirs(tmp_path / "copy" / "tiny.yaml", "val", size, shifted(3))
    found = evaluate(Predictor(name="moved", predict=shifted(3), names=NAMES), tiny_data, imgsz=size)
    assert (found.map5095, found.map50) == (wanted["metrics/mAP50-95(B)"], wanted["metrics/mAP50(B)"])
    assert 0.1 < found.map5095 < 0.9, "a metric at its end would not tell scales apart"


@pytest.mark.parametrize("size", SIZES)
def test_a_detector_that_sees_everything_finds_everything(tiny_data, size):
    found = evaluate(Predictor(name="colours", predict=find_colours, names=NAMES), tiny_data, imgsz=size)
    assert found.map50 == pytest.approx(0.995)  # the most that 101 points give


def test_a_known_box_in_a_letterbox(tmp_path):
    """A picture of 60 x 120 pixels in 96 x 160: scaled by 4/3 to 80 x 160, with 8 grey rows above and below."""
    picture = np.full((60, 120, 3), 120, np.uint8)
    picture[15:45, 30:90] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "one.png"), picture)
    seen = load_image(tmp_path / "one.png", "96x160")
    assert seen.shape == (3, 96, 160)
    assert torch.all(seen[:, :8] == 114 / 255)
    assert torch.all(seen[:, 88:] == 114 / 255)
    box = find_colours(seen[None])[0, :4, 0]
    # centre and sides times 4/3, 8 rows lower; the edge pixels are mixed by the interpolation
    assert torch.allclose(box, torch.tensor([80.0, 48.0, 80.0, 40.0]), atol=1.5)


def test_the_chain_and_ultralytics_predicting(tiny_data, tmp_path):
    from ultralytics import YOLO

    model = fxqat.load(write(tmp_path, "yolov8n"))
    qat = fxqat.calibrate(fxqat.prepare(model, "w8a8")[0], tiny_data, imgsz="64x96", images_limit=4)
    assert (qat.imgsz, qat.recipe.calibration["imgsz"]) == (ImageSize.of((64, 96)), [64, 96])
    file = fxqat.export(qat, tmp_path / "n_int8.onnx")
    opened = from_onnx(file)
    assert opened.imgsz == usual_size([opened]) == qat.imgsz
    assert measure([file], rounds=1, runs=1, warmup=0)[0].shape == (1, 3, 64, 96)
    assert fxqat.verify(qat, file, tiny_data, images_limit=2).total("reference_runtime").differing == 0
    yolo = YOLO(file, task="detect")
    (result,) = yolo.predict(str(next((tiny_data.parent / "images" / "val").glob("*.png"))), conf=1e-9, verbose=False)
    assert yolo.predictor.imgsz == [64, 96]
    height, width = result.orig_shape
    assert (result.boxes.xyxy[:, [0, 2]] <= width).all()
    assert (result.boxes.xyxy[:, [1, 3]] <= height).all()


def test_other_sizes_are_refused(tiny_data, tmp_path):
    names = str(NAMES)
    fixed = from_onnx(write_onnx(tmp_path / "fixed.onnx", imgsz=(64, 96), names=names))
    assert refusal(evaluate, fixed, tiny_data, imgsz=(96, 64)) == "imgsz 96x64: fixed.onnx takes 64x96 only; use 64x96"
    assert refusal(evaluate, fixed, tiny_data, imgsz=(64, 100)) == (
        "imgsz 64x100: is not a multiple of 32; use 64x96 or 64x128"
    )
    words = "cannot be run: takes images of [64, 96], not [96, 64]"
    assert refusal(measure, [tmp_path / "fixed.onnx"], imgsz=(96, 64)) == f"{tmp_path / 'fixed.onnx'}: {words}"


@pytest.mark.slow
def test_real_weights_give_what_ultralytics_gives(shared_data, tmp_path):
    """Ultralytics' validation of the exported file, against ours of the same: the same float for float."""
    from ultralytics import YOLO

    from fxqat.data.images import image_paths
    from fxqat.models import offline

    offline.provide_fonts()
    data = (shared_data / "coco-val" / "data.yaml").resolve()
    for path in image_paths(data, split="val", limit=24).paths:
        for file in (path, Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")):
            target = tmp_path / file.relative_to(data.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    copy = tmp_path / "data.yaml"
    copy.write_text(data.read_text())
    file = fxqat.export(fxqat.load(shared_data / "weights" / "yolov8n.pt"), tmp_path / "n.onnx", imgsz=(192, 320))
    options = {"plots": False, "workers": 0, "device": "cpu", "project": str(tmp_path / "runs")}
    stock = YOLO(file, task="detect").val(data=str(copy), **options)
    ours = evaluate(from_onnx(file), data, imgsz=(192, 320), limit=24)
    assert (ours.map5095, ours.map50) == (stock.box.map, stock.box.map50)
    assert (ours.precision, ours.recall) == (stock.box.mp, stock.box.mr)
    assert ours.map5095 > 0.1
