"""What a training shows while it runs: a line an epoch, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fxqat.training.callbacks import ProgressiveQuantization, QuantizationErrorMonitor
from fxqat.training.config import TrainingConfig
from fxqat.training.schedules import PHASES

_PHASE = max(map(len, PHASES))
_TEACHERS = {"task": "labels", "distill": "the float network", "features": "its feature maps"}


def announced(plan: TrainingConfig) -> str:
    """What a training is about to do, whether a flag says so or the policy."""
    teachers = " and ".join(words for part, words in _TEACHERS.items() if getattr(plan.loss, part))
    epochs = f"{plan.epochs} epoch{'s' if plan.epochs > 1 else ''}"
    rate = plan.overrides()["lr0"]
    scales = ", learning scales" if plan.lsq else ""
    return f"learning from {teachers}{scales}: {epochs}, {plan.imgsz} pixels, batch {plan.batch}, lr0 {rate:g}"


class EpochTable:
    """One line an epoch: the metric of the quantized average in points, rate, parts of the loss, stage, time to go,
    worst site.

    The stage is the phase of a schedule that has phases, and how many stages of quantizers are on; a training that has
    neither has no such column.

    Args:
        write: takes a line.
        monitor: whose worst site is shown.
        progressive: whose stages are counted.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        monitor: QuantizationErrorMonitor | None = None,
        progressive: ProgressiveQuantization | None = None,
    ) -> None:
        self.write, self.monitor, self.progressive = write, monitor, progressive
        self.began, self.first, self.heading = 0.0, 0, ""

    def on_start_validated(self, trainer: Any) -> None:
        """Every row so far: epoch 0, and what was trained before resuming."""
        self.began, self.first = time.monotonic(), len(trainer.history)
        for row in trainer.history:
            self._line(trainer, row, "")

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """The newest row."""
        done = len(trainer.history)
        mean = (time.monotonic() - self.began) / (done - self.first)
        left = 0.0 if trainer.stop else mean * (trainer.epochs - done + 1)
        self._line(trainer, trainer.history[-1], f"{int(left) // 60}:{int(left) % 60:02d}")

    def _line(self, trainer: Any, row: Mapping[str, Any], left: str) -> None:
        parts = [name for name in row if name not in ("epoch", "map5095", "map50", "lr")]
        names = "".join(f"{name:>13}" for name in parts)
        metric = trainer.metric
        measured = f"epoch  {metric.title:>8}{metric.second_title:>8}       lr"
        heading = f"{measured}{names}{self._stage(trainer, None)}   to go  worst site"
        if heading != self.heading and (parts or not self.heading):
            self.heading = heading
            self.write(heading)
        worst = self.monitor.worst() if self.monitor else ""
        values = "".join(f"{row[name]:>13.4f}" for name in parts) + self._stage(trainer, row["epoch"])
        start = f"{row['epoch']:>5}  {row['map5095'] * 100:>8.2f}{row['map50'] * 100:>8.2f}  {row['lr']:>7.1e}"
        self.write(f"{start}{values}  {left:>6}  {worst}".rstrip())

    def _stage(self, trainer: Any, epoch: int | None) -> str:
        """The cell of what epoch ``epoch`` (1 is the first trained) was trained in; None is its heading."""
        cells = []
        if phase := trainer.phase:
            words = "phase" if epoch is None else phase(epoch - 1) if epoch else ""
            cells.append(f"  {words:>{_PHASE}}")
        if self.progressive:
            words = "stage" if epoch is None else self.progressive.stage(epoch - 1) if epoch else ""
            cells.append(f"  {words:>5}")
        return "".join(cells)


class BatchProgress:
    """Calls ``step(done, total)`` after each batch of the whole training."""

    def __init__(self, step: Callable[[int, int], None]) -> None:
        self.step, self.done = step, 0

    def on_start_validated(self, trainer: Any) -> None:
        """Count what was trained before resuming."""
        self.done = (len(trainer.history) - 1) * len(trainer.train_loader)
        self.step(self.done, trainer.epochs * len(trainer.train_loader))

    def on_train_batch_end(self, trainer: Any) -> None:
        """One more."""
        self.done += 1
        self.step(self.done, trainer.epochs * len(trainer.train_loader))
