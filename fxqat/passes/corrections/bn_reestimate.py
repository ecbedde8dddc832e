"""Batch norm re-estimation: measure running mean and variance again with fake quantization on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxqat.graph.pipeline import PassReport
from fxqat.passes.corrections.layerwise import Material
from fxqat.quant.modules import QATBatchNorm2d, QATConv2d


@dataclass(frozen=True, kw_only=True)
class BNReestimate:
    """Replace running mean and variance by those of the quantized network over ``images`` images (Nagel et al. 2022,
    arXiv:2203.11086, section 4.2: running statistics lag behind weights whose codes oscillate at the end of training).

    Every batch is normalised by its own statistics on the way, as in training; mean and unbiased variance are those of
    all images together. A batch norm that was frozen stays as it is: its statistics were constants to the training.

    Args:
        images: how many, evenly spread over the calibration images.
        batch: images at a time; the statistics that normalise on the way are those of so many images.
    """

    images: int = 64
    batch: int = 8
    name: str = "bn_reestimate"
    before_ranges: bool = False

    def __post_init__(self) -> None:
        for option in ("images", "batch"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option}: {getattr(self, option)!r} is not legal, expected 1 or more")

    def __call__(self, gm: fx.GraphModule, material: Material) -> PassReport:
        """Re-estimate every live batch norm in place."""
        norms = live_norms(gm)
        if not norms:
            return PassReport(says="nothing to re-estimate: no batch norm is live")
        images = list(material.images.spread(self.images))
        moments = {norm: _Moments(norm.num_features) for norm in norms}
        with torch.no_grad(), _measuring(moments):
            for start in range(0, len(images), self.batch):
                gm(torch.cat(images[start : start + self.batch]))
                material.progress(min(start + self.batch, len(images)), len(images))
        moved = max(moments[norm].store(norm) for norm in norms)
        _follow(gm)
        says = f"{len(norms)} batch norms over {len(images)} images, largest shift {moved:.3g} standard deviations"
        return PassReport(says=says)


def bn_reestimate(gm: fx.GraphModule, material: Material, *, images: int = 64, batch: int = 8) -> PassReport:
    """Re-estimate ``gm``'s live batch norms in place, see :class:`BNReestimate`; for the end of a training."""
    return BNReestimate(images=images, batch=batch)(gm, material)


def live_norms(gm: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms that learn in training: those of QATConv2d, and those alone, that nobody froze."""
    owners = [module for module in gm.modules() if isinstance(module, QATConv2d) and module.bn is not None]
    frozen = {owner.bn for owner in owners if owner.bn_frozen}
    norms = [module for module in gm.modules() if isinstance(module, nn.BatchNorm2d) and module not in frozen]
    return [norm for norm in norms if not (isinstance(norm, QATBatchNorm2d) and norm.bn_frozen)]


class _Moments:
    """Count, sum and sum of squares of each channel, in float64: the sums of a whole data set lose float32's digits."""

    def __init__(self, channels: int) -> None:
        self.count, self.sums = 0, torch.zeros(2, channels, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        values = x.detach().transpose(0, 1).flatten(1).double()
        self.count += values.shape[1]
        self.sums += torch.stack([values.sum(1), values.square().sum(1)]).cpu()

    def store(self, norm: nn.BatchNorm2d) -> float:
        """Write mean and variance; return the largest move of a mean, in running standard deviations."""
        mean, square = self.sums / self.count
        variance = (square - mean.square()).clamp(min=0) * (self.count / max(self.count - 1, 1))
        old_mean, old_variance = norm.running_mean, norm.running_var
        if old_mean is None or old_variance is None:
            return 0.0
        moved = (mean.to(old_mean) - old_mean).abs() / (old_variance + norm.eps).sqrt()
        old_mean.copy_(mean)
        old_variance.copy_(variance)
        return float(moved.max())


@contextmanager
def _measuring(moments: dict[nn.BatchNorm2d, _Moments]) -> Iterator[None]:
    """Let the batch norms use their batch's statistics, keep the running ones, and see what enters."""
    before = {norm: (norm.training, norm.momentum) for norm in moments}
    counts = {norm: norm.num_batches_tracked.clone() for norm in moments if norm.num_batches_tracked is not None}
    hooks = [norm.register_forward_pre_hook(_adding(moments[norm])) for norm in moments]
    try:
        for norm in moments:
            norm.training, norm.momentum = True, 0.0
        yield
    finally:
        for norm, (training, momentum) in before.items():
            norm.training, norm.momentum = training, momentum
        for norm, count in counts.items():
            norm.num_batches_tracked = count
        for hook in hooks:
            hook.remove()


def _adding(moments: _Moments) -> Any:
    return lambda norm, inputs: moments.add(inputs[0])


def _follow(gm: nn.Module) -> None:
    """The folded weights have changed, and their ranges with them."""
    for module in gm.modules():
        if isinstance(module, QATConv2d) and _has_fixed_scale(module):
            module.calibrate_weight()


def _has_fixed_scale(module: QATConv2d) -> bool:
    return module.weight_fake_quant is not None and module.weight_fake_quant.spec.scale == "fixed"
