"""Quantization-aware training on Ultralytics' trainer: trainers, losses, callbacks and schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxqat.lazy import lazy_names

if TYPE_CHECKING:
    from fxqat.training.callbacks import (
        EarlyStopping,
        ModelCheckpoint,
        ProgressiveQuantization,
        QuantizationErrorMonitor,
        TensorBoardLogger,
    )
    from fxqat.training.config import TrainingConfig, configure
    from fxqat.training.factory import attach, create_trainer
    from fxqat.training.losses import (
        DistillationLoss,
        FocalLoss,
        LossConfig,
        QATPenaltyLoss,
        TaskLoss,
        build_loss_function,
    )
    from fxqat.training.progress import BatchProgress, EpochTable
    from fxqat.training.qat_trainer import QATTrainer
    from fxqat.training.schedules import Cosine, Linear, QATLearningRateScheduler, TorchSchedule, make_schedule
    from fxqat.training.trainer import Trainer

__all__ = [
    "BatchProgress",
    "Cosine",
    "DistillationLoss",
    "EarlyStopping",
    "EpochTable",
    "FocalLoss",
    "Linear",
    "LossConfig",
    "ModelCheckpoint",
    "ProgressiveQuantization",
    "QATLearningRateScheduler",
    "QATPenaltyLoss",
    "QATTrainer",
    "QuantizationErrorMonitor",
    "TaskLoss",
    "TensorBoardLogger",
    "TorchSchedule",
    "Trainer",
    "TrainingConfig",
    "attach",
    "build_loss_function",
    "configure",
    "create_trainer",
    "make_schedule",
]

# Found on first use: the losses and trainers import Ultralytics.
_HOMES = {
    "fxqat.training.callbacks": (
        "EarlyStopping",
        "ModelCheckpoint",
        "ProgressiveQuantization",
        "QuantizationErrorMonitor",
        "TensorBoardLogger",
    ),
    "fxqat.training.config": ("TrainingConfig", "configure"),
    "fxqat.training.factory": ("attach", "create_trainer"),
    "fxqat.training.losses": (
        "DistillationLoss",
        "FocalLoss",
        "LossConfig",
        "QATPenaltyLoss",
        "TaskLoss",
        "build_loss_function",
    ),
    "fxqat.training.progress": ("BatchProgress", "EpochTable"),
    "fxqat.training.qat_trainer": ("QATTrainer",),
    "fxqat.training.schedules": ("Cosine", "Linear", "QATLearningRateScheduler", "TorchSchedule", "make_schedule"),
    "fxqat.training.trainer": ("Trainer",),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
