"""The INT8 reference graph executed in integers, as ONNX Runtime's fused kernels do it, code for code."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxqat.graph.site import site_of
from fxqat.quant import kernels
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor


# Arguments of fx nodes are a wide union; here a node's target says what they are, so nodes are passed as Any.
class IntegerExecution(fx.Interpreter):
    """Runs an INT8 graph; ``codes`` afterwards holds every quantized tensor by its site.

    What a runtime fuses is computed by its formula (fxqat.quant.kernels):

        dequantize... -> conv2d | sigmoid | mul | add -> quantize

    Operations between that only move codes need no formula, and all others (the decode) run in float as they stand.
    Convolutions are exact sums of integers.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.codes: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """One node; a fused one is computed where its quantize stands."""
        if n.target in _KERNELS and _is_fused(n):
            return None
        if n.target is not quantize_per_tensor:
            return super().run_node(n)
        codes = self._quantized(n)
        self.codes[site_of(n)] = codes
        return codes

    def _quantized(self, n: Any) -> Tensor:
        source, scale, zero_point, low, high, dtype = n.args
        if isinstance(source, fx.Node) and source.target in _KERNELS and _is_fused(source):
            return _KERNELS[source.target](self, source, n).to(dtype)
        x = self.env[source]
        return torch.clamp(torch.round(x / torch.tensor(scale)) + zero_point, low, high).to(dtype)

    def conv2d(self, node: Any, n: Any) -> Tensor:
        """Integer convolution, int32 bias included, then requantized."""
        x, weight, bias, stride, padding, dilation, groups = node.args
        _, y_scale, y_zero, low, high, _ = n.args
        codes = self.env[x.args[0]].float() - x.args[2]
        total = _exact_conv(codes, self.env[weight.args[0]], (stride, padding, dilation, groups))
        if bias is not None:
            total += self.env[bias.args[0]].view(1, -1, 1, 1)
        scale = kernels.multiplier(float(x.args[1]), self._weight_scale(weight), y_scale)
        return kernels.requantize_accumulator(total, scale.view(1, -1, 1, 1), y_zero, low, high)

    def sigmoid(self, node: Any, n: Any) -> Tensor:
        """By table, see kernels."""
        (source,) = node.all_input_nodes
        return kernels.sigmoid(self.env[source.args[0]], *source.args[1:3], *n.args[1:5])

    def mul(self, node: Any, n: Any) -> Tensor:
        """See kernels."""
        return self._pair(kernels.mul, node, n)

    def add(self, node: Any, n: Any) -> Tensor:
        """See kernels."""
        return self._pair(kernels.add, node, n)

    def _pair(self, kernel: Callable[..., Tensor], node: Any, n: Any) -> Tensor:
        a, b = node.args
        scales = (a.args[1], b.args[1], n.args[1])
        zeros = (a.args[2], b.args[2], n.args[2])
        return kernel(self.env[a.args[0]], self.env[b.args[0]], scales, zeros, *n.args[3:5])

    def _weight_scale(self, weight: Any) -> Tensor:
        if weight.target is dequantize_per_channel:
            return self.env[weight.args[1]]
        return torch.tensor([weight.args[1]], dtype=torch.float32)


def _exact_conv(codes: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    """The convolution of integers -255..255 and int8 weights, exact, as float64.

    Where it can, by two float32 convolutions of the codes' halves (``x = 16 h + l``), four times as fast as one in
    float64: float32 holds every sum of integers below 2**24, whatever the order of the additions.
    """
    if 16 * 128 * weight[0].numel() >= 2**24:
        return F.conv2d(codes.double(), weight.double(), None, *geometry)
    upper = torch.floor(codes / 16)
    kernel = weight.float()
    low = F.conv2d(codes - 16 * upper, kernel, None, *geometry).double()
    return low.add_(F.conv2d(upper, kernel, None, *geometry).double(), alpha=16)


def _is_fused(node: fx.Node) -> bool:
    """Whether a runtime computes ``node`` on codes: every tensor it reads is dequantized for it, and a quantize alone
    reads it."""
    reads = (dequantize_per_tensor, dequantize_per_channel)
    feeds = list(node.users)
    return all(one.target in reads for one in node.all_input_nodes) and [one.target for one in feeds] == [
        quantize_per_tensor
    ]


_KERNELS: dict[Any, Callable[[IntegerExecution, fx.Node, fx.Node], Tensor]] = {
    torch.conv2d: IntegerExecution.conv2d,
    torch.sigmoid: IntegerExecution.sigmoid,
    operator.mul: IntegerExecution.mul,
    operator.add: IntegerExecution.add,
}
