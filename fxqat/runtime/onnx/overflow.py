"""Overflow of 16-bit sums: a proof from the weights of an ONNX file that no input causes one, or the pair that does.

Processors without VNNI add two products of an activation and a weight in 16 bits (see ``fxqat.quant.pairs``). Whether
that can saturate depends on the weights alone, so no image is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import PAIR_MAX, Overflow, overflow, pair_indices
from fxqat.runtime.onnx.onnx_editing import attributes

# Where an operation has its weight, by its type; the first group reads it through a DequantizeLinear.
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
_INTEGER_WEIGHTS = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "ConvInteger": 1, "MatMulInteger": 1}
_CODES = {onnx.TensorProto.INT8}  # with unsigned weights the kernels widen each product


@dataclass(frozen=True, kw_only=True)
class LayerOverflow:
    """An operation of a file and the worst pair of its weights."""

    layer: str
    pair: Overflow

    def __str__(self) -> str:
        pair = self.pair
        return f"{self.layer}: channel {pair.row}, weights {pair.a} and {pair.b} sum to {pair.total}"


@dataclass(frozen=True, kw_only=True)
class OverflowProof:
    """What the weights of a file say about 16-bit sums.

    Attributes:
        layers: operations with int8 weights.
        overflowing: those with a pair of weights above the bound, in the order of the file.
    """

    layers: int
    overflowing: tuple[LayerOverflow, ...]

    @property
    def holds(self) -> bool:
        """Whether no 16-bit sum can overflow, whatever the input."""
        return not self.overflowing

    def __str__(self) -> str:
        if self.holds:
            return (
                f"no 16-bit sum can overflow on any input: {self.layers} integer layers, every pair within {PAIR_MAX}"
            )
        found = f"16-bit sums can overflow in {len(self.overflowing)} of {self.layers} integer layers"
        return f"{found}, which only processors with VNNI compute exactly; first {self.overflowing[0]}"


def prove(model: onnx.ModelProto | str | Path, orders: Sequence[Order]) -> OverflowProof:
    """Check every pair of weights that kernels of ``orders`` add in 16 bits.

    Args:
        model: the file, read or by its path; its layers have int8 weights, behind DequantizeLinear or as inputs of
            integer operations.
        orders: of the runtime's kernels.
    """
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    layers, found = 0, list[LayerOverflow]()
    for node, codes in integer_weights(proto):
        layers += 1
        weight, groups = _by_output(node, codes)
        of_node = [Order.TAPS] if node.op_type == "ConvTranspose" else orders
        pair = overflow(weight, pair_indices(weight.shape, of_node, groups=groups)) if groups else None
        if pair is not None:
            found.append(LayerOverflow(layer=node.name or node.output[0], pair=pair))
    return OverflowProof(layers=layers, overflowing=tuple(found))


def integer_weights(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    """Every operation with a constant int8 weight, and the weight's codes as they stand in the file."""
    constants = {one.name: one for one in proto.graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    for node in proto.graph.node:
        name = _weight_name(node, dequantized)
        if name in constants and constants[name].data_type in _CODES:
            yield node, numpy_helper.to_array(constants[name])


def _weight_name(node: onnx.NodeProto, dequantized: Mapping[str, str]) -> str:
    if (place := _INTEGER_WEIGHTS.get(node.op_type)) is not None:
        return node.input[place]
    place = _WEIGHTS.get(node.op_type)
    return "" if place is None else dequantized.get(node.input[place], "")


def _by_output(node: onnx.NodeProto, codes: np.ndarray) -> tuple[Tensor, int]:
    """The weight as (M, C / groups, ...) and its groups; 0 groups where products are never added in 16 bits."""
    how: Any = attributes(node)
    groups = int(how.get("group", 1))
    if node.op_type == "ConvTranspose":  # (C, M / groups, Kh, Kw); OpenVINO alone computes it in integers
        return torch.from_numpy(codes.swapaxes(0, 1).copy()), groups if groups == 1 else 0
    if "Conv" in node.op_type or (node.op_type in {"Gemm", "QGemm"} and how.get("transB", 0)):
        return torch.from_numpy(codes.copy()), groups
    return torch.from_numpy(codes.swapaxes(-1, -2).reshape(-1, codes.shape[-2]).copy()), 1
