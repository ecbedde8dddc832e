"""Callbacks in Ultralytics' style: methods named after its events, called with the trainer (``create_trainer`` and
``attach`` register them). ``on_start_validated`` is ours: epoch 0 has been measured, or a resumed state read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from fxqat.checkpoint.model_io import save
from fxqat.data import images
from fxqat.errors import Problem
from fxqat.files import check_folder
from fxqat.graph.site import covers, nearest
from fxqat.models.detector import Detector
from fxqat.passes.calibrate import before_silu
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize


class ModelCheckpoint:
    """Keeps detectors that every command takes, while training goes on: ``best.fxqat`` (epoch 0 is the first best),
    ``last.fxqat`` and, after every ``every`` epochs, ``epochN.fxqat``, beside the state in the run's folder.

    Args:
        every: None keeps the best and the last only.
    """

    def __init__(self, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every: {every!r} is not legal, expected 1 or more, or None")
        self.every = every

    def on_start_validated(self, trainer: Any) -> None:
        """The best so far."""
        self._keep(trainer, "best", trainer.result())

    def on_model_save(self, trainer: Any) -> None:
        """What the epoch made."""
        done, made = len(trainer.history) - 1, trainer.latest()
        self._keep(trainer, "last", made)
        if trainer.best_epoch == done:
            self._keep(trainer, "best", made)
        if self.every and done % self.every == 0:
            self._keep(trainer, f"epoch{done}", made)

    def _keep(self, trainer: Any, name: str, detector: Detector) -> None:
        save(detector, trainer.state_file.with_name(f"{name}.fxqat"))


class EarlyStopping:
    """Stops after ``patience`` epochs that were no better than the best before them, epoch 0 included."""

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f"patience: {patience!r} is not legal, expected 1 or more")
        self.patience = patience

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Ask the trainer to stop."""
        if len(trainer.history) - 1 - trainer.best_epoch >= self.patience:
            trainer.stop = True


class ProgressiveQuantization:
    """Switches quantizers on in stages; what no stage names is on from the start.

    The average of weights, which is validated and kept, always has every quantizer on.

    Args:
        stages: globs of sites, and the epoch (0 is the first trained) at whose start they are calibrated on
            ``calibration`` images, with what is on by then, and switched on.
        calibration: how many training images, letterboxed.
    """

    def __init__(self, stages: Mapping[str, int], calibration: int = 32) -> None:
        self.stages, self.calibration = dict(stages), calibration

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Switch."""
        gm, epoch = trainer.trainee.detector.gm, trainer.epoch
        due = [fake for glob, start in self.stages.items() if start == epoch > 0 for fake in self._named(gm, glob)]
        for glob, start in self.stages.items():
            for fake in self._named(gm, glob):
                fake.enable_fake_quant(start < epoch or epoch == 0 == start)
        if due:
            layers = {id(fake) for site, fake in all_quantizers(gm).items() if site.endswith(".weight")}
            observe_again(trainer, gm, [fake for fake in due if id(fake) not in layers], self.calibration)
            for fake in due:
                fake.enable_fake_quant()

    def stage(self, epoch: int) -> str:
        """How many of the stages are on in ``epoch``."""
        return f"{sum(start <= epoch for start in self.stages.values())}/{len(self.stages)}"

    def _named(self, gm: fx.GraphModule, glob: str) -> list[FakeQuantize]:
        every = all_quantizers(gm)
        found = [fake for site, fake in every.items() if covers(glob, site)]
        if not found:
            raise Problem("progressive", f"{glob!r} matches no quantizer", remedy=nearest(glob, every))
        return found


class QuantizationErrorMonitor:
    """Signal to quantization noise of every site after each epoch, in dB, of the average that is validated.

    Writes ``sqnr.csv`` (epoch, site, sqnr_db) into the run's folder, and scalars where a TensorBoardLogger is given.

    Args:
        images: training images that it is measured on.
        logger: for TensorBoard.
    """

    def __init__(self, images: int = 8, logger: TensorBoardLogger | None = None) -> None:
        self.images, self.logger = images, logger
        self.history: list[dict[str, float]] = []

    def on_start_validated(self, trainer: Any) -> None:
        """Epoch 0, or where a resumed training stands."""
        self.on_fit_epoch_end(trainer)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Measure."""
        found = site_sqnr(trainer.ema.ema.detector.gm, inference_images(trainer, self.images))
        self.history.append(found)
        epoch = len(trainer.history) - 1
        path = Path(trainer.save_dir) / "sqnr.csv"
        fresh = epoch == 0 or not path.exists()
        with path.open("w" if fresh else "a", encoding="utf-8") as file:
            file.write("epoch,site,sqnr_db\n" if fresh else "")
            file.writelines(f"{epoch},{site},{value:.3f}\n" for site, value in found.items())
        if self.logger is not None:
            self.logger.scalars({f"sqnr/{site}": value for site, value in found.items()}, epoch)

    def on_train_end(self, trainer: Any) -> None:
        """Plot the first and last measurement as ``sqnr.png``."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        axes = figure.add_subplot()
        for found, label in ((self.history[0], "first"), (self.history[-1], "last")):
            axes.plot(list(found.values()), ".", markersize=3, label=label)
        axes.set(xlabel="site, in the order of the computation", ylabel="SQNR / dB")
        axes.legend()
        figure.savefig(Path(trainer.save_dir) / "sqnr.png", dpi=120)

    def worst(self) -> str:
        """The site of the lowest SQNR in the newest measurement, with its value."""
        if not self.history:
            return ""
        found = self.history[-1]
        site = min(found, key=lambda one: found[one])
        return f"{site} {found[site]:.1f} dB"


class TensorBoardLogger:
    """Scalars of each epoch (parts of the loss, mAP, rate), the range of each activation, histograms of weights and of
    the scales of each layer's weights.

    Args:
        folder: where event files go.

    Raises:
        Problem: TensorBoard is not installed, or the folder cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise Problem(
                "TensorBoardLogger", "tensorboard is not installed", remedy="pip install tensorboard"
            ) from error
        check_folder(folder)
        self.writer: Any = SummaryWriter(str(folder))

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Log values by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)

    def on_start_validated(self, trainer: Any) -> None:
        """Epoch 0."""
        self.on_fit_epoch_end(trainer)

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """The newest row, ranges, weights and scales."""
        row, gm = trainer.history[-1], trainer.ema.ema.detector.gm
        epoch = row["epoch"]
        self.scalars({name: value for name, value in row.items() if name != "epoch"}, epoch)
        for site, fake in QuantGraph(gm).quantizers().items():
            low, high = fake.qparams().span
            self.scalars({f"range/{site}/low": low, f"range/{site}/high": high}, epoch)
        for layer in QuantGraph(gm).layers():
            self.writer.add_histogram(f"weight/{layer.site}", layer.module.weight.detach(), epoch)
            if (rounding := layer.module.weight_fake_quant) is not None:
                self.writer.add_histogram(f"scale/{layer.site}", rounding.qparams().scale, epoch)

    def on_train_end(self, trainer: Any) -> None:
        """Close the files."""
        self.writer.close()


@torch.no_grad()
def observe_again(trainer: Any, gm: fx.GraphModule, fakes: list[FakeQuantize], count: int) -> None:
    """Choose the ranges of activations anew on ``count`` training images, with what quantizes by now quantizing;
    ranges that are given stay."""
    observed = [fake for fake in fakes if fake.spec.fixed is None]
    for fake in observed:
        fake.renew_observer()
        fake.enable_observer()
    training = gm.training
    gm.eval()
    for batch in inference_images(trainer, count):
        gm(batch)
    gm.train(training)
    for fake in observed:
        fake.disable_observer()
        fake.update_qparams()


def all_quantizers(gm: fx.GraphModule) -> dict[str, FakeQuantize]:
    """Activation quantizers by site, and weight quantizers by ``SITE.weight``."""
    found = QuantGraph(gm).quantizers()
    for layer in QuantGraph(gm).layers():
        if layer.module.weight_fake_quant is not None:
            found[f"{layer.site}.weight"] = layer.module.weight_fake_quant
    return found


@torch.no_grad()
def site_sqnr(gm: fx.GraphModule, batches: Any) -> dict[str, float]:
    """``10 log10(sum x^2 / sum (q(x) - x)^2)`` of every quantizer by site, over ``batches`` of images (B, 3, H, W).

    The quantized network's own tensors are the signal. Before a SiLU both are compared after it, which is all that the
    next layer sees: most of that tensor is so negative that it ends near 0. A site without any error has 999 dB.
    """
    sums: dict[str, list[torch.Tensor]] = {}
    hooks = []
    silu = before_silu(gm)
    for site, fake in QuantGraph(gm).quantizers().items():
        through = nn.functional.silu if fake in silu else nn.Identity()

        def add(module: Any, given: Any, result: torch.Tensor, site: str = site, through: Any = through) -> None:
            _add(sums, site, through(given[0]), through(result))

        hooks.append(fake.register_forward_hook(add))
    training = gm.training
    gm.eval()
    try:
        for batch in batches:
            gm(batch)
    finally:
        for hook in hooks:
            hook.remove()
        gm.train(training)
    for layer in QuantGraph(gm).layers():
        if (rounding := layer.module.weight_fake_quant) is not None:
            weight, _ = layer.module.folded()
            _add(sums, f"{layer.site}.weight", weight, rounding.quantize(weight))
    return {site: _decibels(*both) for site, both in sums.items()}


def inference_images(trainer: Any, count: int) -> Any:
    """``count`` training images as inference sees them, spread evenly, in batches on the trainer's device."""
    found = images.image_paths(trainer.args.data, limit=count)
    for batch in images.batches(found, trainer.plan.imgsz, 8, lambda path, why: None, fit=trainer.given.fit):
        yield batch.to(trainer.device)


def _add(sums: dict[str, list[torch.Tensor]], site: str, x: torch.Tensor, y: torch.Tensor) -> None:
    both = sums.setdefault(site, [torch.zeros((), dtype=torch.float64) for _ in range(2)])
    both[0] += x.double().square().sum().cpu()
    both[1] += (y.double() - x.double()).square().sum().cpu()


def _decibels(signal: torch.Tensor, noise: torch.Tensor) -> float:
    return float(10 * torch.log10(signal / noise)) if noise > 0 and signal > 0 else 999.0
