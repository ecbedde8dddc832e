"""What is shown while a training runs, against trainers that are only played."""

from __future__ import annotations

from types import SimpleNamespace

from rows import row

from fxqat.models.families import FAMILIES
from fxqat.training.callbacks import ProgressiveQuantization
from fxqat.training.progress import BatchProgress, EpochTable
from fxqat.training.schedules import QATLearningRateScheduler

METRIC = FAMILIES["detect"].metric


def test_the_table_shows_rows_from_before_resuming():
    lines: list[str] = []
    history = [row(0, 0.3), row(1, 0.4, cls_loss=2.5)]
    trainer = SimpleNamespace(history=history, epochs=3, stop=False, phase=None, metric=METRIC)
    table = EpochTable(lines.append)
    table.on_start_validated(trainer)
    trainer.history.append(row(2, 0.45, cls_loss=2.0))
    table.on_fit_epoch_end(trainer)
    assert lines == [
        "epoch  mAP50-95   mAP50       lr   to go  worst site",
        "    0     30.00   30.00  0.0e+00",
        "epoch  mAP50-95   mAP50       lr     cls_loss   to go  worst site",
        "    1     40.00   40.00  1.0e-05       2.5000",
        "    2     45.00   45.00  2.0e-05       2.0000    0:00",
    ]


def test_progress_counts_what_was_trained_before():
    steps: list[tuple[int, int]] = []
    progress = BatchProgress(lambda done, total: steps.append((done, total)))
    trainer = SimpleNamespace(history=[row(0, 0.3), row(1, 0.4)], epochs=3, train_loader=range(5))
    progress.on_start_validated(trainer)
    progress.on_train_batch_end(trainer)
    assert steps == [(5, 15), (6, 15)]


def test_the_table_shows_phases_and_stages():
    lines: list[str] = []
    schedule = QATLearningRateScheduler(epochs=3, warmup=0.1, prequantization=0.3, qat=0.3)
    history = [row(0, 0.3), row(1, 0.4, cls_loss=2.5), row(2, 0.4, cls_loss=2.5), row(3, 0.4, cls_loss=2.5)]
    trainer = SimpleNamespace(history=history, epochs=3, stop=False, phase=schedule.phase, metric=METRIC)
    EpochTable(lines.append, progressive=ProgressiveQuantization({"model.1.**": 1})).on_start_validated(trainer)
    assert lines == [
        "epoch  mAP50-95   mAP50       lr             phase  stage   to go  worst site",
        "    0     30.00   30.00  0.0e+00",
        "epoch  mAP50-95   mAP50       lr     cls_loss             phase  stage   to go  worst site",
        "    1     40.00   40.00  1.0e-05       2.5000           warm-up    0/1",
        "    2     40.00   40.00  2.0e-05       2.5000  pre-quantization    1/1",
        "    3     40.00   40.00  3.0e-05       2.5000               qat    1/1",
    ]
