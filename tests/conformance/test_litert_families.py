"""Every family as a .tflite file: no code differs, and ``YOLO()`` predicts from it what evaluation does."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from alive import alive
from small_networks import V8

import fxqat
from fxqat.evaluation.tflite_predictor import from_tflite
from fxqat.models.detector import Detector
from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_summary import float_operations

MISSING = [name for name in ("litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"no .tflite is written or run: {MISSING} not installed", allow_module_level=True)

SIZE = 64
# A conversion takes its time by the site, so each family is here with one of each block and two levels of its head.
V9 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, ELAN1, [32, 32, 16]]
  - [-1, 1, AConv, [32]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 1]]
  - [-1, 1, SPPELAN, [32, 16]]
  - [-1, 1, ADown, [32]]
head:
  - [[2, 5], 1, {head}]
"""
V10 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SCDown, [32, 3, 2]]
  - [-1, 1, PSA, [32]]
  - [-1, 1, C2fCIB, [32, True, True]]
head:
  - [[1, 3], 1, {head}]
"""
V12 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [32, False, 0.25]]
  - [-1, 1, A2C2f, [64, True, 1]]
  - [-1, 1, C2PSA, [64]]
  - [-1, 1, C3k2, [64, True]]
head:
  - [[2, 5], 1, {head}]
"""
V26 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [32, True]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, SPPF, [32, 5, 3, True]]
  - [-1, 1, C3k2, [32, True, 0.5, True]]
head:
  - [[2, 5], 1, {head}]
"""
FAMILIES = {
    "yolov8-seg": (V8, "Segment, [nc, 32, 64]"),
    "yolov8-pose": (V8, "Pose, [nc, kpt_shape]"),
    "yolov8-obb": (V8, "OBB, [nc, 1]"),
    "yolov9": (V9, "Detect, [nc]"),
    "yolov10": (V10, "v10Detect, [nc]"),
    "yolo12": (V12, "Detect, [nc]"),
    "yolo26-seg": (V26, "Segment26, [nc, 32, 64]"),
    "yolo26-pose": (V26, "Pose26, [nc, kpt_shape]"),
    "yolo26-obb": (V26, "OBB26, [nc, 1]"),
}


def architecture(name: str) -> str:
    backbone, head = FAMILIES[name]
    end2end = "end2end: True\nreg_max: 1\n" if name.startswith("yolo26") else ""
    return f"nc: 3\nkpt_shape: [4, 3]\n{end2end}backbone:{backbone.format(head=head)}"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A family's model on its way to a file."""

    qat: Detector
    file: Path


@pytest.fixture(scope="module", params=[*FAMILIES, "yolov8n-cls"])
def made(request, images, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / f"small_{request.param}.yaml"
    if request.param in FAMILIES:
        path.write_text(architecture(request.param))
    model = fxqat.load(str(path) if request.param in FAMILIES else f"{request.param}.yaml")
    qat = fxqat.calibrate(fxqat.prepare(alive(model, images), "w8a8", target="litert")[0], [images])
    return Made(qat=qat, file=fxqat.export(qat, folder / "small_int8.tflite", imgsz=SIZE))


@pytest.mark.slow
def test_no_code_differs(made, images):
    shown = [torch.round(images[:1] * 255) / 255]
    found = fxqat.verify(made.qat, made.file, shown, imgsz=SIZE, runtimes="litert,litert-plain")
    assert found.total("reference_runtime").codes > 10_000
    assert found.total("reference_runtime").differing == 0
    # lengths of up to 64 pixels, maps and angles: float32 and no more operations than the decode's
    assert max(found.output_error.values()) < 64 * 2**-18


@pytest.mark.slow
def test_what_multiplies_in_float_is_the_decode_and_attention(made):
    found = float_operations(TFLiteFile.read(made.file))
    assert set(found.shares) <= {"FULLY_CONNECTED", "BATCH_MATMUL"}
    assert found.share < 0.05


@pytest.mark.slow
def test_ultralytics_loads_the_file_and_predicts_the_same(made, images, tmp_path):
    from ultralytics import YOLO

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), (images[0].numpy()[::-1] * 255).round().astype(np.uint8).transpose(1, 2, 0))
    task = made.qat.source.task
    (found,) = YOLO(made.file, task=task).predict(str(picture), imgsz=SIZE, conf=1e-9, verbose=False, device="cpu")
    ours = from_tflite(made.file)
    assert (ours.family, ours.final) == (made.qat.source.family, made.qat.final)
    y = ours(torch.from_numpy(found.orig_img[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)
    best = ours.final[0].scores(y[0] if isinstance(y, tuple) else y).max()
    theirs = found.probs.top1conf if task == "classify" else (found.obb if task == "obb" else found.boxes).conf.max()
    assert float(theirs) == pytest.approx(float(best), rel=1e-5)
