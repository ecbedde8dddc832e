"""A small calibrated three-class YOLOv8 at 64 pixels, and a training of it in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alive import alive
from small_networks import write

import fxqat
from fxqat.models.detector import Detector
from fxqat.training.config import configure
from fxqat.training.factory import create_trainer
from fxqat.training.trainer import Trainer

IMGSZ = 64
Train = Callable[..., Trainer]


@pytest.fixture(scope="session")
def three(images: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A small float YOLOv8 of three classes with random weights; read only."""
    return alive(fxqat.load(write(tmp_path_factory.mktemp("three"), "yolov8n")), images)


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
