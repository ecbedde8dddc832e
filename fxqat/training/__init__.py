"""Quantization-aware training on Ultralytics' trainer: trainers, losses, callbacks and schedules."""

from __future__ import annotations

import importlib
from typing import Any

# Found on first use: the losses and trainers import Ultralytics.
_HOMES = {
    **dict.fromkeys(("QATTrainer", "Trainer"), "trainer"),
    **dict.fromkeys(("attach", "create_trainer"), "factory"),
    **dict.fromkeys(("TrainingConfig", "configure"), "config"),
    **dict.fromkeys(
        ("DistillationLoss", "FocalLoss", "LossConfig", "QATPenaltyLoss", "TaskLoss", "build_loss_function"), "losses"
    ),
    **dict.fromkeys(
        (
            "EarlyStopping",
            "ModelCheckpoint",
            "ProgressiveQuantization",
            "QuantizationErrorMonitor",
            "TensorBoardLogger",
        ),
        "callbacks",
    ),
    **dict.fromkeys(("BatchProgress", "EpochTable"), "progress"),
    **dict.fromkeys(("Cosine", "Linear", "QATLearningRateScheduler", "TorchSchedule", "make_schedule"), "schedules"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fxqat.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fxqat.training.{_HOMES[name]}"), name)
