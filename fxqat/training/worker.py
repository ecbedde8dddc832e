"""One of several training processes: ``python -m torch.distributed.run -m fxqat.training.worker JOB``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import distributed

from fxqat.checkpoint.model_io import load
from fxqat.errors import Problem
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.training.callbacks import ProgressiveQuantization, QuantizationErrorMonitor
from fxqat.training.config import TrainingConfig
from fxqat.training.factory import create_trainer
from fxqat.training.losses import LossConfig
from fxqat.training.progress import EpochTable

# isort: split
from ultralytics.utils import RANK


def work(job: Path) -> None:
    """Take part in the training that ``job`` tells; the first process writes its table."""
    told = json.loads((job / "job.json").read_text(encoding="utf-8"))
    plan = TrainingConfig(**{**told["plan"], "loss": LossConfig(**told["plan"]["loss"])})
    teacher = job / "teacher.fxqat"
    trainer = create_trainer(
        load(job / "model.fxqat"),
        plan,
        told["folder"],
        teacher=load(teacher) if teacher.is_file() else None,
        resume=told["resume"],
        callbacks=_callbacks(plan),
    )
    try:
        trainer.train()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _callbacks(plan: TrainingConfig) -> list[Any]:
    """Stages are switched in every process, what is written is written by the first."""
    stages = ProgressiveQuantization(plan.progressive) if plan.progressive else None
    found: list[Any] = [stages] if stages else []
    if RANK > 0:
        return found
    monitor = QuantizationErrorMonitor()
    return [*found, monitor, EpochTable(lambda line: print(line, flush=True), monitor, stages)]


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]))
    except Problem as problem:
        sys.exit(f"fxqat: {problem}")
