"""Bias correction: subtract from a layer's bias the mean error that quantization causes in its output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxqat.graph.pipeline import PassReport
from fxqat.passes.corrections.layerwise import (
    Function,
    Layer,
    LayerBatch,
    Material,
    beside_channels,
    identity,
    layers,
    lockstep,
)

ORDERS = ("sequential", "parallel")


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """Empirical bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2), channel by channel::

        bias -= sum(w * (y_quantized - y_float)) / sum(w)        w = f'(y_float)**2

    over all positions of all images, ``y`` before the activation ``f``. The weight is 1 in the paper; here the mean
    is the shift of least squared error after the activation, to first order. SiLU is nearly 0 below -6, where many
    of YOLOv8's values are: the plain mean would correct errors there, which have no effect, and add errors elsewhere.

    The correction is added to the beta of the layer's batch norm, or to its bias; a layer with neither is skipped.

    Args:
        images: how many; all of them are in memory at once with order "sequential" (one layer's outputs of each).
        order: "sequential", each layer after those before it were corrected, or "parallel", all at once.
        weighted: by the activation's slope; else the paper's plain mean.
        float_layers: correct layers that are computed in float too, if something before them is quantized.
    """

    images: int = 32
    order: str = "sequential"
    weighted: bool = True
    float_layers: bool = True
    name: str = "bias_correction"
    before_ranges: bool = False

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order: {self.order!r} is not legal, expected one of {', '.join(ORDERS)}")
        if self.images < 1:
            raise ValueError(f"images: {self.images!r} is not legal, expected 1 or more")

    def __call__(self, gm: fx.GraphModule, material: Material) -> PassReport:
        """Correct every layer's bias in place."""
        chosen = {layer.node.name for layer in layers(gm) if self._corrects(layer)}
        images = list(material.images.spread(self.images))
        if self.order == "sequential":
            shifts = self._sequential(gm, images, chosen, material)
        else:
            shifts = self._parallel(gm, images, chosen, material)
        for layer in layers(gm):
            if layer.node.name in shifts:
                _add_to_bias(layer.module, shifts[layer.node.name])
        largest = max((float(shift.abs().max()) for shift in shifts.values()), default=0.0)
        says = f"{len(shifts)} layers corrected ({self.order}, {len(images)} images), largest shift {largest:.3g}"
        figures = {site.site: shifts[site.node.name].tolist() for site in layers(gm) if site.node.name in shifts}
        return PassReport(says=says, figures={"shifts": figures})

    def _corrects(self, layer: Layer) -> bool:
        return (layer.integer or self.float_layers) and _bias(layer.module) is not None

    def _sequential(
        self, gm: fx.GraphModule, images: list[Tensor], chosen: set[str], material: Material
    ) -> dict[str, Tensor]:
        shifts: dict[str, Tensor] = {}
        count = len(layers(gm))
        steps = iter(range(1, count + 1))

        def visit(layer: Layer, seen: list[LayerBatch]) -> list[Tensor] | None:
            material.progress(next(steps), count)
            if layer.node.name not in chosen:
                return None
            shift = shifts[layer.node.name] = _shift(self._sums(layer, seen))
            return [one.quantized.add_(beside_channels(shift, one.quantized)) for one in seen]

        lockstep(gm, material.reference, images, visit)
        return shifts

    def _parallel(
        self, gm: fx.GraphModule, images: list[Tensor], chosen: set[str], material: Material
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}

        def visit(layer: Layer, seen: list[LayerBatch]) -> None:
            if layer.node.name in chosen:
                sums[layer.node.name] = sums.get(layer.node.name, 0) + self._sums(layer, seen)

        for done, image in enumerate(images, start=1):
            lockstep(gm, material.reference, [image], visit)
            material.progress(done, len(images))
        return {name: _shift(total) for name, total in sums.items()}

    def _sums(self, layer: Layer, seen: Iterable[LayerBatch]) -> Tensor:
        """Weighted error and weight of each channel, float64 [2, C]."""
        function = layer.activation if self.weighted else identity
        return torch.stack([_weighted(one, function) for one in seen]).sum(0)


def slope(function: Function, x: Tensor) -> Tensor:
    """The derivative of an elementwise ``function`` at ``x``, same shape."""
    if function is identity:
        return torch.ones_like(x)
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        return torch.autograd.grad(function(at).sum(), at)[0]


def _weighted(seen: LayerBatch, function: Function) -> Tensor:
    weight = slope(function, seen.reference).square_()
    error = weight * (seen.quantized - seen.reference)
    axis = 1 if error.dim() == 4 else -1
    return torch.stack([one.movedim(axis, 0).flatten(1).sum(1).double() for one in (error, weight)])


def _shift(sums: Tensor) -> Tensor:
    error, weight = sums
    # a channel that no image lets through has no weight, and nothing to correct
    return torch.where(weight > 0, -error / weight.clamp(min=1e-12), 0.0).float()


def _bias(module: Any) -> Tensor | None:
    """What shifts a layer's output: the batch norm's beta, else the layer's own bias; None where there is neither."""
    shift: Tensor | None = module.bn.bias if module.bn is not None and module.bn.affine else module.bias
    return shift


def _add_to_bias(module: Any, shift: Tensor) -> None:
    bias = _bias(module)
    if bias is not None:
        # a bias before a batch norm without beta reaches the output scaled
        bias.data += shift if module.bn is None or module.bn.affine else shift / module._factor()
