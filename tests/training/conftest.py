"""A calibrated three-class YOLOv8n at 64 pixels, and a training of it in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fxqat
from fxqat.models.detector import Detector
from fxqat.training.config import configure
from fxqat.training.factory import create_trainer
from fxqat.training.trainer import Trainer

IMGSZ = 64
Train = Callable[..., Trainer]


@pytest.fixture(scope="session")
def three(images: torch.Tensor) -> Detector:
    """Float YOLOv8n of three classes with random weights; read only."""
    model = fxqat.load("yolov8n.yaml", classes=3)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:  # see the fixture yolov8n: a fresh network fades to nothing
        norm.momentum = 1.0
    with torch.no_grad():
        model.train().gm(images)
    for norm in norms:
        norm.momentum = 0.03
    return model.eval()


@pytest.fixture(scope="session")
def ptq(three: Detector, tiny_data: Path) -> Detector:
    """``three`` under w8a8, calibrated; read only."""
    return fxqat.calibrate(fxqat.prepare(three, "w8a8")[0], tiny_data, imgsz=IMGSZ)


@pytest.fixture
def trainer(ptq: Detector, tiny_data: Path, tmp_path: Path) -> Train:
    """``trainer(name, callbacks=..., **options)``: made, not run; its folder is ``tmp_path / name``."""

    def made(
        name: str, *, callbacks: Sequence[Any] = (), resume: bool = False, detector: Detector = ptq, **options: Any
    ) -> Trainer:
        return build(detector, tiny_data, tmp_path / name, callbacks=callbacks, resume=resume, **options)

    return made


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``scripted(*values)``: validations measure ``values``, epoch 0 first, in place of a random network's accuracy;
    they saw one image, and found nothing there."""

    def made(*values: float) -> None:
        left = list(values)

        def validate(self: Trainer) -> tuple[dict[str, float], float]:
            none = np.zeros(0)
            statistics = {
                "tp": [np.zeros((0, 10), bool)],
                "conf": [none],
                "pred_cls": [none],
                "target_cls": [np.zeros(1)],
            }
            self.validator.metrics.nt_per_class = np.ones(3)
            self.validator.statistics, self.validator.names = statistics, self.trainee.names
            value = left.pop(0)
            return {self.metric.key: value, self.metric.second: value}, value

        monkeypatch.setattr(Trainer, "validate", validate)

    return made


def build(
    detector: Detector,
    data: Path,
    folder: Path,
    *,
    callbacks: Sequence[Any] = (),
    resume: bool = False,
    **options: Any,
) -> Trainer:
    """A trainer at 64 pixels, six images a step, on the CPU."""
    chosen = {"imgsz": IMGSZ, "batch": 6, "epochs": 2, "device": "cpu", **options}
    return create_trainer(detector, configure(str(data), None, "", chosen), folder, callbacks=callbacks, resume=resume)
