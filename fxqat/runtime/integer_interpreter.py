"""Execution of the INT8 reference graph in the integer arithmetic of a runtime's fused kernels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxqat.graph.site import site_of
from fxqat.quant import ort_kernels
from fxqat.quant.arithmetic import Arithmetic
from fxqat.quant.compiled_kernels import is_dense
from fxqat.quant.torch_ao import dequantize_per_channel, quantize_per_tensor
from fxqat.runtime.reference.fused_kernels import LOWEST, computed_from, idle_nodes, last_reads, silu


# Arguments of fx nodes are a wide union; here a node's target says what they are, so nodes are passed as Any.
class IntegerExecution(fx.Interpreter):
    """An interpreter of INT8 graphs. Operations that the runtime fuses are computed by its formula (see
    fxqat.quant.arithmetic):

        dequantize... -> conv2d [-> ReLU] | linear | sigmoid | mul | add -> quantize

    Operations that only move values run on integers directly; all others (the decode) run in float. The sums of
    convolutions and linear layers are exact.

    Args:
        gm: at stage ``int8``.
        arithmetic: of the runtime's kernels; ONNX Runtime's on x86 by default.
        keep: whether ``codes`` holds the integers of every quantized tensor, by site, after a run. Without it a SiLU
            is one look-up in a table of 256 entries, and a tensor is freed after its last use.
        given: integers of another execution, by site. The run goes on from them instead of its own, so that each of
            ``codes`` has one operation's difference from that execution, and none of the operations before it. Integers
            of another shape are left aside.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        arithmetic: Arithmetic = ort_kernels,
        *,
        keep: bool = True,
        given: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.arithmetic, self.keep, self.codes, self.given = arithmetic, keep, dict[str, Tensor](), given
        nodes = list(gm.graph.nodes)
        self._silus = {} if keep else {node: found for node in nodes if (found := silu(node)) is not None}
        self._tables: dict[fx.Node, Tensor] = {}
        self._idle = idle_nodes(nodes, self._silus.values())
        self._last_reads = {} if keep else last_reads(nodes, self._idle)

    def run_node(self, n: fx.Node) -> Any:
        """The value of one node; a fused operation is computed at the quantize node that ends it."""
        if n in self._idle:
            return None
        found = self._quantized(n) if n.target is quantize_per_tensor else super().run_node(n)
        if self.keep and n.target is quantize_per_tensor:
            self.codes[site_of(n)] = found
            given = self.given.get(site_of(n), found)
            found = given if given.shape == found.shape else found
        for read in self._last_reads.get(n, ()):
            del self.env[read]
        return found

    def _quantized(self, n: Any) -> Tensor:
        source, scale, zero_point, low, high, dtype = n.args
        if n in self._silus:
            return self._looked_up(n)
        if (kernel := computed_from(n)) is not None:
            return _KERNELS[kernel.target](self, kernel, n).to(dtype)
        return self.arithmetic.quantize(self.env[source], scale, zero_point, low, high).to(dtype)

    def _looked_up(self, n: fx.Node) -> Tensor:
        codes: Tensor = self.env[self._silus[n].x]
        if n not in self._tables:
            self._tables[n] = self._silus[n].table(codes.dtype, self.arithmetic).to(codes.device)
        dense = codes if is_dense(codes) else codes.contiguous()
        index = dense.as_strided((dense.numel(),), (1,)).int() - LOWEST[codes.dtype]
        return self._tables[n].index_select(0, index).as_strided(dense.shape, dense.stride())

    def conv2d(self, node: Any, n: Any) -> Tensor:
        """Integer convolution, int32 bias included, then requantized."""
        codes, weight = (self.env[one.args[0]] for one in node.args[:2])
        return self._layer(codes, weight, node.args[3:], node, n)

    def linear(self, node: Any, n: Any) -> Tensor:
        """As a convolution of one tap; channels are the last axis."""
        codes, weight = (self.env[one.args[0]] for one in node.args[:2])
        found = self._layer(codes.reshape(-1, codes.shape[-1], 1, 1), weight[:, :, None, None], _ONE_TAP, node, n)
        return found.view(*codes.shape[:-1], len(weight))

    def _layer(self, codes: Tensor, weight: Tensor, geometry: tuple[Any, ...], node: Any, n: Any) -> Tensor:
        x, scaled, bias = node.args[:3]
        _, y_scale, y_zero, low, high, _ = n.args
        added = None if bias is None else self.env[bias.args[0]]
        total = ort_kernels.exact_conv(codes.float() - x.args[2], weight, added, geometry)
        scales = (float(x.args[1]), self._weight_scale(scaled), y_scale)
        return self.arithmetic.requantize(total, scales, y_zero, low, high)

    def sigmoid(self, node: Any, n: Any) -> Tensor:
        """Integer sigmoid, by table; see ``Arithmetic.sigmoid``."""
        (source,) = node.all_input_nodes
        return self.arithmetic.sigmoid(self.env[source.args[0]], *source.args[1:3], *n.args[1:5])

    def mul(self, node: Any, n: Any) -> Tensor:
        """Integer product of two tensors, requantized."""
        return self._pair(self.arithmetic.mul, node, n)

    def add(self, node: Any, n: Any) -> Tensor:
        """Integer sum of two tensors, requantized."""
        return self._pair(self.arithmetic.add, node, n)

    def _pair(self, kernel: Callable[..., Tensor], node: Any, n: Any) -> Tensor:
        a, b = node.args
        scales = (a.args[1], b.args[1], n.args[1])
        zeros = (a.args[2], b.args[2], n.args[2])
        return kernel(self.env[a.args[0]], self.env[b.args[0]], scales, zeros, *n.args[3:5])

    def _weight_scale(self, weight: Any) -> Tensor:
        if weight.target is dequantize_per_channel:
            return self.env[weight.args[1]]
        return torch.tensor([weight.args[1]], dtype=torch.float32)


_ONE_TAP = ((1, 1), (0, 0), (1, 1), 1)  # stride, padding, dilation, groups
_KERNELS: dict[Any, Callable[[IntegerExecution, fx.Node, fx.Node], Tensor]] = {
    torch.conv2d: IntegerExecution.conv2d,
    F.linear: IntegerExecution.linear,
    torch.sigmoid: IntegerExecution.sigmoid,
    operator.mul: IntegerExecution.mul,
    operator.add: IntegerExecution.add,
}
