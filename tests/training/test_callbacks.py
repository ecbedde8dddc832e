"""Callbacks: in one training where they can share it, or against a trainer that is only played."""

from __future__ import annotations

import csv
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from rows import row

import fxqat
from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.training.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    ProgressiveQuantization,
    QuantizationErrorMonitor,
    TensorBoardLogger,
    all_quantizers,
    site_sqnr,
)
from fxqat.training.factory import attach


def same(one: Detector, other: Detector) -> bool:
    """Every tensor, bit for bit."""
    mine, theirs = one.gm.state_dict(), other.gm.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


class SwitchWatch:
    """Which of two sites quantize in the trained model and in the average, at every batch."""

    sites = ("model.0.conv.silu", "model.6.cv3.0.2.weight")

    def __init__(self) -> None:
        self.seen: list[tuple[bool, ...]] = []

    def on_train_batch_end(self, trainer) -> None:
        models = (trainer.trainee.detector.gm, trainer.ema.ema.detector.gm)
        self.seen.append(tuple(all_quantizers(gm)[site].quantizing for gm in models for site in self.sites))


def test_one_training_with_all_of_them(ptq, tiny_data, tmp_path):
    lines: list[str] = []
    steps: list[tuple[int, int]] = []
    watch, monitor = SwitchWatch(), QuantizationErrorMonitor(images=4)
    trained = fxqat.train(
        ptq,
        tiny_data,
        folder=tmp_path / "run",
        on_line=lines.append,
        progress=lambda done, total: steps.append((done, total)),
        callbacks=[ModelCheckpoint(every=2), watch, monitor],
        **{
            "imgsz": 64,
            "batch": 6,
            "epochs": 2,
            "device": "cpu",
            "progressive": {"model.6.**": 1},
            "unlabelled": False,
        },
    )
    assert trained.recipe.training["config"]["progressive"] == {"model.6.**": 1}
    # the head joins in the second epoch; the average is whole all along
    assert watch.seen == [(True, False, True, True)] * 2 + [(True, True, True, True)] * 2
    kept = {path.stem: fxqat.load(path) for path in sorted((tmp_path / "run/weights").glob("*.fxqat"))}
    assert list(kept) == ["best", "epoch2", "last"]
    assert kept["best"].recipe.training["epoch"] == trained.recipe.training["epoch"]
    assert same(kept["best"], trained)
    assert kept["last"].recipe.training["epoch"] == 2
    assert same(kept["last"], kept["epoch2"])
    assert not same(kept["last"], ptq)
    assert steps == [(done, 4) for done in range(5)]
    assert lines.pop(0) == "learning from labels, learning scales: 2 epochs, 64 pixels, batch 6, lr0 2e-06"
    assert lines[0].split() == ["epoch", "mAP50-95", "mAP50", "lr", "stage", "to", "go", "worst", "site"]
    assert [line.split()[7] for line in lines[3:]] == ["0/1", "1/1"]
    assert lines[2].split()[4:7] == ["box_loss", "cls_loss", "dfl_loss"]
    assert [line.split()[0] for line in (lines[1], *lines[3:])] == ["0", "1", "2"]
    assert all(line.endswith(" dB") for line in (lines[1], *lines[3:]))
    with (tmp_path / "run/sqnr.csv").open() as file:
        table = list(csv.DictReader(file))
    assert sorted({entry["epoch"] for entry in table}) == ["0", "1", "2"]
    assert len(table) == 3 * len(monitor.history[0])  # one monitor serves us and the table
    assert (tmp_path / "run/sqnr.png").stat().st_size > 1000


def test_sqnr_is_the_ratio_of_signal_and_rounding(calibrated, images):
    found = site_sqnr(calibrated.gm, [images])
    assert found.keys() == all_quantizers(calibrated.gm).keys()
    fake = all_quantizers(calibrated.gm)["images"]
    noise = (fake.quantize(images).double() - images.double()).square().sum()
    expected = 10 * math.log10(float(images.double().square().sum() / noise))
    assert found["images"] == pytest.approx(expected, rel=1e-9)
    assert not any(one._forward_hooks for one in calibrated.gm.modules())


def test_sqnr_before_a_silu_is_that_after_it(calibrated, images):
    seen: list[torch.Tensor] = []
    fake = all_quantizers(calibrated.gm)["model.0.conv"]
    hook = fake.register_forward_hook(lambda module, given, result: seen.extend((given[0], result)))
    with torch.no_grad():
        calibrated.gm(images)
    hook.remove()
    signal, rounded = (torch.nn.functional.silu(one).double() for one in seen)
    expected = 10 * math.log10(float(signal.square().sum() / (rounded - signal).square().sum()))
    assert site_sqnr(calibrated.gm, [images])["model.0.conv"] == pytest.approx(expected, rel=1e-9)


def test_the_worst_site_is_the_lowest():
    monitor = QuantizationErrorMonitor()
    assert monitor.worst() == ""
    monitor.history = [{"a": 1.0}, {"a": 30.0, "b": 12.34}]
    assert monitor.worst() == "b 12.3 dB"


def test_early_stopping_counts_from_the_best_epoch():
    trainer = SimpleNamespace(history=[row(0, 0.3), row(1, 0.4), row(2, 0.3)], best_epoch=1, stop=False)
    stopping = EarlyStopping(patience=2)
    stopping.on_fit_epoch_end(trainer)
    assert not trainer.stop
    trainer.history.append(row(3, 0.2))
    stopping.on_fit_epoch_end(trainer)
    assert trainer.stop


def test_early_stopping_stops_a_training(trainer, scripted):
    scripted(0.1, 0.1)
    run = trainer("early", epochs=9, callbacks=[EarlyStopping(patience=1)])
    run.train()
    assert len(run.history) == 2


def test_a_stage_that_names_nothing(trainer):
    with pytest.raises(Problem, match=r"progressive: 'modle.0.\*\*' matches no quantizer"):
        trainer("typo", callbacks=[ProgressiveQuantization({"modle.0.**": 1})], epochs=1).train()


def test_a_stage_is_calibrated_before_it_is_switched_on(trainer):
    stage = ProgressiveQuantization({"model.1.**": 1}, calibration=4)
    run = trainer("stage", callbacks=[stage])
    site, spoiled = "model.1.conv.silu", 123.0

    class Spoil:
        def on_start_validated(self, running) -> None:
            all_quantizers(running.trainee.detector.gm)[site].scale.data.fill_(spoiled)

    attach(run, Spoil())
    before = float(all_quantizers(run.given.gm)[site].scale)
    run.train()
    after = float(all_quantizers(run.trainee.detector.gm)[site].scale)
    # four of twelve images, and weights that moved by 1e-5 a step
    assert after == pytest.approx(before, rel=0.3)
    assert float(all_quantizers(run.ema.ema.detector.gm)[site].scale) == after
    assert stage.stage(0) == "0/1"
    assert stage.stage(1) == "1/1"


def test_tensorboard_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Problem, match="TensorBoardLogger: tensorboard is not installed; pip install tensorboard"):
        TensorBoardLogger(tmp_path)


def test_tensorboard_gets_scalars_and_histograms(monkeypatch, tmp_path, calibrated):
    logged: dict[str, list[object]] = {}

    class Writer:
        def __init__(self, folder: str) -> None:
            self.add_scalar = self.add_histogram = lambda name, value, epoch: logged.setdefault(name, []).append(epoch)
            self.close = lambda: logged.setdefault("closed", [])

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    logger = TensorBoardLogger(tmp_path)
    ema = SimpleNamespace(ema=SimpleNamespace(detector=calibrated))
    logger.on_fit_epoch_end(SimpleNamespace(history=[row(0, 0.1), row(1, 0.2, cls_loss=1.0)], ema=ema))
    logger.scalars({"sqnr/a": 3.0}, 1)
    logger.on_train_end(None)
    assert {"map5095", "lr", "cls_loss", "weight/model.0.conv", "scale/model.0.conv"} <= logged.keys()
    assert {"range/images/low", "range/images/high", "sqnr/a", "closed"} <= logged.keys()
    assert logged["weight/model.0.conv"] == [1]


@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_counts_are_checked(kind):
    with pytest.raises(ValueError, match="0 is not legal, expected 1 or more"):
        kind(0)
