"""Transfer of weights and ranges from a calibrated or trained graph to the graph of another target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fxqat.passes.insert import QUANTIZERS
from fxqat.passes.quant_graph import QuantGraph, is_quantizer, quant_info
from fxqat.quant.affine import choose_qparams
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.spec import QParams, QuantSpec


@dataclass(frozen=True, kw_only=True)
class TransferSummary:
    """Counts of where the quantization parameters of a graph for another target come from.

    Attributes:
        ranges: activation quantizers that kept a range.
        joined: those of them that cover several ranges, because the new target gives these tensors one scale.
        known: activation quantizers with a range that the target fixes.
        observed: sites of the tensors that the old target did not quantize; their ranges must come from images.
        weights: weight quantizers that kept their scales.
        rounded: weight quantizers with new scales, because the integer type or the bound is different.
    """

    ranges: int
    joined: int
    known: int
    observed: tuple[str, ...]
    weights: int
    rounded: int

    def __str__(self) -> str:
        joined = f" ({self.joined} of them joined)" if self.joined else ""
        rounded = f", {self.rounded} rounded anew" if self.rounded else ""
        observed = f", {len(self.observed)} observed" if self.observed else ""
        return f"{self.ranges} ranges carried over{joined}{observed}; {self.weights} weights kept{rounded}"


@torch.no_grad()
def transfer(source: fx.GraphModule, made: fx.GraphModule, *, observed: bool) -> TransferSummary:
    """Copy weights and ranges of ``source`` to ``made``, which was prepared from the same network for another target.

    A tensor keeps its range if it has the same site, or if the same layer reads it. With the same number of integer
    levels the scale is the same, bit for bit. Weights, biases and batch norms are copied.

    Args:
        source: calibrated.
        made: changed in place; its quantizers have ranges only if ``observed``.
        observed: whether images were shown to ``made``; then a symmetric range does not replace an observed
            asymmetric one.
    """
    _copy_parameters(source, made)
    weights, rounded = _transfer_weights(source, made)
    origins, known, missing, joined = _origins(source, made), 0, list[str](), 0
    quantizers = QuantGraph(made).quantizers_by_path()
    for path, fake in quantizers.items():
        found = [one for one in origins.get(path, []) if not (observed and _is_wasteful(one.spec, fake.spec))]
        known += fake.spec.fixed is not None
        if fake.spec.fixed is not None:
            continue
        if found:
            fake.load_qparams(_range(found, fake.spec))
            joined += len(found) > 1
        else:
            missing.append(fake.site)
    taken = len(quantizers) - known - len(missing)
    return TransferSummary(
        ranges=taken, joined=joined, known=known, observed=tuple(missing), weights=weights, rounded=rounded
    )


def _copy_parameters(source: fx.GraphModule, made: fx.GraphModule) -> None:
    wanted, given = made.state_dict(), source.state_dict()
    for name, tensor in wanted.items():
        if not name.startswith(f"{QUANTIZERS}.") and ".weight_fake_quant." not in name:
            tensor.copy_(given[name])


def _transfer_weights(source: fx.GraphModule, made: fx.GraphModule) -> tuple[int, int]:
    kept, rounded = 0, 0
    layers = {str(one.node.target): one.module for one in QuantGraph(source).layers()}
    for one in QuantGraph(made).layers():
        layer = one.module
        if layer.weight_fake_quant is None:
            continue
        before = layers[str(one.node.target)].weight_fake_quant
        if before is not None and _codes(before.spec) == _codes(layer.weight_fake_quant.spec):
            layer.weight_fake_quant.load_qparams(before.qparams())
            layer.settle_weight()
            kept += torch.equal(before.scale, layer.weight_fake_quant.scale)
            rounded += not torch.equal(before.scale, layer.weight_fake_quant.scale)
        else:
            layer.calibrate_weight()
            rounded += 1
    return kept, rounded


def _codes(spec: QuantSpec) -> tuple[int, int, int | None]:
    return spec.quant_min, spec.quant_max, spec.axis


def _origins(source: fx.GraphModule, made: fx.GraphModule) -> dict[str, list[FakeQuantize]]:
    """For each quantizer of ``made``, by path, the quantizers of ``source`` of the same tensors; found by the tensor's
    site, else by the layer that reads it."""
    old = QuantGraph(source).quantizers_by_path()
    by_tensor = {tensor: old[path] for tensor, path in _tensors(source)}
    by_reader = {reader: old[path] for reader, path in _readers(source)}
    found: dict[str, list[FakeQuantize]] = {}
    for names, links in ((by_tensor, _tensors(made)), (by_reader, _readers(made))):
        seen = set(found)
        for name, path in links:
            fakes = found.setdefault(path, []) if path not in seen else []
            if name in names and names[name] not in fakes:
                fakes.append(names[name])
        found = {path: fakes for path, fakes in found.items() if fakes}
    return found


def _tensors(gm: fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Each quantized tensor, named by its site in the fused graph (the same for every target), with the path of its
    quantizer."""
    for node in gm.graph.nodes:
        path = quant_info(node).quantizer
        if path is not None and not is_quantizer(node):
            yield QuantGraph(gm).tensor(node), path


def _readers(gm: fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Each integer layer with the path of its input's quantizer."""
    for layer in QuantGraph(gm).layers():
        path = quant_info(layer.input).quantizer
        if path is not None:
            yield layer.site, path


def _is_wasteful(old: QuantSpec, new: QuantSpec) -> bool:
    return old.symmetric and not new.symmetric


def _range(fakes: list[FakeQuantize], spec: QuantSpec) -> QParams:
    """Quantization parameters in the form of ``spec`` that cover the ranges of all ``fakes``."""
    every = [fake.qparams() for fake in fakes]
    first = every[0]
    levels = first.quant_max - first.quant_min == spec.quant_max - spec.quant_min
    if len(every) == 1 and levels and spec.symmetric <= fakes[0].spec.symmetric:
        low = torch.zeros_like(first.scale)
        form = choose_qparams(low, low, spec)
        shift = spec.quant_min - first.quant_min
        return QParams(
            scale=first.scale,
            zero_point=first.zero_point + shift,
            quant_min=form.quant_min,
            quant_max=form.quant_max,
            axis=form.axis,
            dtype=form.dtype,
        )
    ends = [_ends(one) for one in every]
    return choose_qparams(
        torch.stack([low for low, _ in ends]).amin(0), torch.stack([high for _, high in ends]).amax(0), spec
    )


def _ends(numbers: QParams) -> tuple[Tensor, Tensor]:
    low, high = ((end - numbers.zero_point) * numbers.scale for end in (numbers.quant_min, numbers.quant_max))
    return low, high
