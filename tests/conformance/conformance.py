"""Conformance: what holds for one family holds for all. Each is prepared with a shipped policy, calibrated, converted,
exported, verified code by code, and loaded by Ultralytics.

Small networks stand for whole ones (test_small_networks.py says why they may); one is here as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from alive import alive
from small_networks import write

import fxqat
from fxqat.api import verify
from fxqat.evaluation.predictor import from_onnx
from fxqat.models.detector import Detector
from fxqat.runtime.reference.int8_summary import account

SIZE = 64
# One of each head and of each block that needs an adapter or a rule; tests/models/test_zoo.py traces the rest.
FAMILIES = ("yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n")
WHOLE = "yolo26n.yaml"
TASKS = tuple(
    f"{model}-{task}" for task in ("seg", "pose", "obb", "cls") for model in ("yolov8n", "yolo11n", "yolo26n")
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A family's model on its way to a file."""

    qat: Detector
    int8: Detector
    file: Path


def make(name: str, images: torch.Tensor, folder: Path) -> Made:
    """The model of an architecture, a file or one that is small, with random weights and real statistics, up to its
    file."""
    architecture = name if name == WHOLE else write(folder, name)
    qat = fxqat.calibrate(fxqat.prepare(alive(fxqat.load(architecture), images), "w8a8")[0], [images])
    int8, _ = fxqat.convert(qat)
    return Made(qat=qat, int8=int8, file=fxqat.export(int8, folder / f"{name}_int8.onnx", imgsz=SIZE))


class Conformance:
    """What is checked of each model that the fixture ``made`` gives; a file inherits it for some of the families."""

    def test_no_code_differs_between_the_reference_and_the_runtime(self, made, images):
        found = verify(made.qat, made.file, [images[:1], images[1:2]], imgsz=SIZE).total("reference_runtime")
        assert found.codes > 10_000
        assert found.differing == 0

    def test_a_large_share_of_the_work_is_integer(self, made):
        found = account(made.int8.gm)
        assert found.share > 0.9, str(found)

    def test_ultralytics_loads_the_file_and_predicts_the_same(self, made, images, tmp_path):
        from ultralytics import YOLO

        picture = tmp_path / "picture.png"
        cv2.imwrite(str(picture), (images[0].numpy()[::-1] * 255).round().astype(np.uint8).transpose(1, 2, 0))
        task = made.qat.source.task
        (found,) = YOLO(made.file, task=task).predict(str(picture), imgsz=SIZE, conf=1e-9, verbose=False, device="cpu")
        ours = from_onnx(made.file)
        assert ours.family is made.qat.source.family
        y = ours(torch.from_numpy(found.orig_img[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)
        best = ours.final[0].scores(y[0] if isinstance(y, tuple) else y).max()
        theirs = (
            found.probs.top1conf if task == "classify" else (found.obb if task == "obb" else found.boxes).conf.max()
        )
        # the same file on the same bytes
        assert float(theirs) == pytest.approx(float(best), rel=1e-5)
