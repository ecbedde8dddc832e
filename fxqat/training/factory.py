"""create_trainer: what is to be trained, checked, with its trainer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.family import Family, imported
from fxqat.training.checks import check_detector, check_devices, check_size, check_teacher
from fxqat.training.config import TrainingConfig, configured
from fxqat.training.data import read
from fxqat.training.qat_trainer import QATTrainer
from fxqat.training.trainer import Trainer
from fxqat.training.ultralytics_model import Trainee


def create_trainer(
    detector: Detector,
    config: TrainingConfig | Mapping[str, Any],
    folder: str | Path,
    *,
    teacher: Detector | None = None,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
) -> Trainer:
    """A QATTrainer for a calibrated detector, a Trainer for a float one; ``train()`` runs it, ``result()`` is the best.

    Args:
        detector: stage ``float`` or ``qat``; it stays as it is.
        config: or a mapping of the options of ``fxqat.train``, and ``data``, over the policy's ``qat:`` section.
        folder: of the run, made where it is missing.
        teacher: float detector for distillation; by default ``detector`` with its quantizers off.
        resume: continue after the last finished epoch of the run in ``folder``.
        callbacks: objects whose ``on_...`` methods are called with the trainer, by Ultralytics' names of events and
            ``on_start_validated``.

    Raises:
        Problem: an illegal option, a stage that is not trained, no calibration, data without labels or of other
            classes, another teacher.
    """
    plan = config if isinstance(config, TrainingConfig) else _from_mapping(detector, config)
    check_detector(detector)
    check_teacher(detector, teacher, plan)
    check_devices(detector, plan)
    check_size(detector, plan)
    found = read(detector, plan.data, needs_labels=plan.loss.needs_labels)
    folder = Path(folder).resolve()
    where = {"project": str(folder.parent), "name": folder.name, "exist_ok": True, "model": "fxqat", "cos_lr": False}
    kind = trainer_class(QATTrainer if detector.stage == "qat" else Trainer, detector.source.family)
    rows = {"nms": False} if detector.source.head_spec.nms_free else {}  # Ultralytics' word for final rows
    given = {"data": str(found.file), "task": detector.source.task, **rows}
    trainer = kind(overrides={**plan.overrides(), **where, **given})
    trainer.use_data(found, labelled=plan.loss.needs_labels)
    trainer.plan, trainer.given, trainer.teacher, trainer.resuming = plan, detector, teacher, resume
    trainer.model = Trainee(copy.deepcopy(detector))
    for one in callbacks:
        attach(trainer, one)
    return trainer


def _from_mapping(detector: Detector, config: Mapping[str, Any]) -> TrainingConfig:
    if "data" not in config:
        raise Problem("create_trainer", "config has no data", expected="the path of a data set YAML")
    return configured(detector, str(config["data"]), {name: config[name] for name in config if name != "data"})


def attach(trainer: Any, callback: Any) -> None:
    """Let ``trainer`` call every method of ``callback`` that is named after an event."""
    for name in dir(callback):
        if name.startswith("on_"):
            trainer.callbacks.setdefault(name, []).append(getattr(callback, name))


@cache
def trainer_class(kind: type[Trainer], family: Family) -> type[Trainer]:
    """``kind`` on Ultralytics' trainer of the family's task."""
    return type(kind.__name__, (kind, imported(family.trainer)), {"__doc__": kind.__doc__})
