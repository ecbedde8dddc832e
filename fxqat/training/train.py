"""The verb: train a detector and give back the best epoch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.files import check_folder, disk_refusals
from fxqat.models.detector import Detector
from fxqat.training.callbacks import ProgressiveQuantization, QuantizationErrorMonitor
from fxqat.training.config import configured
from fxqat.training.factory import create_trainer
from fxqat.training.progress import BatchProgress, EpochTable, announced


def run(
    model: Detector,
    data: str | Path,
    folder: str | Path,
    *,
    teacher: Detector | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    callbacks: Sequence[Any] = (),
    options: dict[str, Any],
) -> Detector:
    """As ``fxqat.train``, with ``options`` as a mapping and the float teacher loaded."""
    check_folder(folder)
    plan = configured(model, str(data), options)
    if "," in plan.device and callbacks:
        raise Problem(
            f"device {plan.device}", "callbacks cannot follow into the processes", remedy="train on one device"
        )
    watchers: list[Any] = [*callbacks]
    if plan.progressive:
        watchers.append(ProgressiveQuantization(plan.progressive))
    if on_line is not None:
        monitor = _monitor(model, callbacks)
        watchers += [monitor] if monitor and monitor not in watchers else []
        stages = next((one for one in watchers if isinstance(one, ProgressiveQuantization)), None)
        watchers.append(EpochTable(on_line, monitor, stages))
    if progress is not None:
        watchers.append(BatchProgress(progress))
    with disk_refusals():
        trainer = create_trainer(model, plan, folder, teacher=teacher, resume=resume, callbacks=watchers)
    if on_line is not None:
        on_line(announced(plan))
    with disk_refusals():
        trainer.train()
    return trainer.result()


def _monitor(model: Detector, callbacks: Sequence[Any]) -> QuantizationErrorMonitor | None:
    # the caller's own where there is one: two would write the same file
    given = (one for one in callbacks if isinstance(one, QuantizationErrorMonitor))
    return next(given, QuantizationErrorMonitor() if model.stage == "qat" else None)
