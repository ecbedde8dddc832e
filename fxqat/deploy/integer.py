"""The INT8 reference graph executed in integers, as ONNX Runtime's fused kernels do it, code for code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxqat.graph.site import site_of
from fxqat.quant import kernels
from fxqat.quant.compiled import is_dense
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor

_EXACT = 2**24  # float32 holds every integer up to here
_LOWEST = {torch.uint8: 0, torch.int8: -128}
_READS = (dequantize_per_tensor, dequantize_per_channel)


# Arguments of fx nodes are a wide union; here a node's target says what they are, so nodes are passed as Any.
class IntegerExecution(fx.Interpreter):
    """Runs an INT8 graph. What a runtime fuses is computed by its formula (fxqat.quant.kernels):

        dequantize... -> conv2d | sigmoid | mul | add -> quantize

    Operations between that only move codes need no formula, and all others (the decode) run in float as they stand.
    Convolutions are exact sums of integers.

    Args:
        gm: at stage ``int8``.
        keep: whether ``codes`` holds every quantized tensor by its site after a run. Without it a SiLU on codes is one
            look-up in a table of 256, and a tensor is let go once nothing reads it.
    """

    def __init__(self, gm: fx.GraphModule, *, keep: bool = True) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.keep, self.codes = keep, dict[str, Tensor]()
        nodes = list(gm.graph.nodes)
        self._silus = {} if keep else {node: found for node in nodes if (found := _silu(node)) is not None}
        self._tables: dict[fx.Node, Tensor] = {}
        self._idle = _idle(nodes, self._silus.values())
        self._last_reads = {} if keep else _last_reads(nodes, self._idle)

    def run_node(self, n: fx.Node) -> Any:
        """One node; a fused one is computed where its quantize stands."""
        if n in self._idle:
            return None
        found = self._quantized(n) if n.target is quantize_per_tensor else super().run_node(n)
        if self.keep and n.target is quantize_per_tensor:
            self.codes[site_of(n)] = found
        for read in self._last_reads.get(n, ()):
            del self.env[read]
        return found

    def _quantized(self, n: Any) -> Tensor:
        source, scale, zero_point, low, high, dtype = n.args
        if n in self._silus:
            return self._looked_up(n)
        if isinstance(source, fx.Node) and _is_fused(source):
            return _KERNELS[source.target](self, source, n).to(dtype)
        x = self.env[source]
        return torch.clamp(torch.round(x / torch.tensor(scale)) + zero_point, low, high).to(dtype)

    def _looked_up(self, n: fx.Node) -> Tensor:
        codes: Tensor = self.env[self._silus[n].x]
        if n not in self._tables:
            self._tables[n] = self._silus[n].table(codes.dtype).to(codes.device)
        dense = codes if is_dense(codes) else codes.contiguous()
        index = dense.as_strided((dense.numel(),), (1,)).int() - _LOWEST[codes.dtype]
        return self._tables[n].index_select(0, index).as_strided(dense.shape, dense.stride())

    def conv2d(self, node: Any, n: Any) -> Tensor:
        """Integer convolution, int32 bias included, then requantized."""
        x, weight, bias, stride, padding, dilation, groups = node.args
        _, y_scale, y_zero, low, high, _ = n.args
        codes = self.env[x.args[0]].float() - x.args[2]
        added = None if bias is None else self.env[bias.args[0]]
        total = _exact_conv(codes, self.env[weight.args[0]], added, (stride, padding, dilation, groups))
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


def _exact_conv(codes: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
    """The convolution of integers -255..255 and int8 weights and its int32 bias, exact, as float32 or float64.

    float32 holds every sum of integers below 2**24, whatever the order of the additions, so one float32 convolution is
    exact where no channel can reach that. Else, where it can, it takes two of the codes' halves (``x = 16 h + l``),
    which is twice as fast as one in float64.
    """
    kernel = weight.float()
    reach = 255 * kernel.abs().sum((1, 2, 3))
    whole = reach if bias is None else reach + bias.abs()
    if whole.max() < _EXACT:
        return F.conv2d(codes, kernel, None if bias is None else bias.float(), *geometry)
    if reach.max() / 16 >= _EXACT:
        total = F.conv2d(codes.double(), kernel.double(), None, *geometry)
    else:
        upper = torch.floor(codes / 16)
        total = F.conv2d(codes - 16 * upper, kernel, None, *geometry).double()
        total.add_(F.conv2d(upper, kernel, None, *geometry).double(), alpha=16)
    return total if bias is None else total.add_(bias.view(1, -1, 1, 1))


def _is_fused(node: fx.Node) -> bool:
    """Whether a runtime computes ``node`` on codes: every tensor it reads is dequantized for it, and a quantize alone
    reads it."""
    if node.target not in _KERNELS:
        return False
    feeds = list(node.users)
    return all(one.target in _READS for one in node.all_input_nodes) and [one.target for one in feeds] == [
        quantize_per_tensor
    ]


@dataclass(frozen=True, eq=False)
class _SiLU:
    """``quantize(dequantize(x) * dequantize(gate))`` with ``gate = quantize(sigmoid(dequantize(x)))``, all nodes."""

    product: Any
    x: Any
    gate: Any

    def table(self, dtype: torch.dtype) -> Tensor:
        """What becomes of each of the 256 codes of ``dtype``, lowest first, in the type of the result."""
        (last,) = self.product.users
        read = self.gate.args[0].all_input_nodes[0]
        x = torch.arange(256) + _LOWEST[dtype]
        gate = kernels.sigmoid(x, *read.args[1:3], *self.gate.args[1:5])
        sides = {self.x: x, self.gate: gate}
        a, b = self.product.args
        scales, zeros = (tuple(one.args[place] for one in (a, b, last)) for place in (1, 2))
        return kernels.mul(sides[a.args[0]], sides[b.args[0]], scales, zeros, *last.args[3:5]).to(last.args[5])


def _silu(n: Any) -> _SiLU | None:
    """What ``n`` quantizes, where that is a SiLU of codes."""
    product = n.args[0] if n.target is quantize_per_tensor else None
    if not isinstance(product, fx.Node) or product.target is not operator.mul or not _is_fused(product):
        return None
    sides: list[Any] = [one.args[0] for one in product.args]  # type: ignore[union-attr]
    for x, gate in (sides, reversed(sides)):
        squashed = gate.args[0] if gate.target is quantize_per_tensor else x
        if squashed.target is torch.sigmoid and _is_fused(squashed) and squashed.all_input_nodes[0].args[0] is x:
            return _SiLU(product, x, gate)
    return None


def _idle(nodes: Sequence[fx.Node], silus: Iterable[_SiLU]) -> set[fx.Node]:
    """Nodes that need no value of their own: a kernel works on the codes in front of them."""
    idle = {node for node in nodes if _is_fused(node)}
    idle |= {
        one.gate for one in silus if all(reader is one.product for user in one.gate.users for reader in user.users)
    }
    return idle | {node for node in nodes if node.target in _READS and node.users.keys() <= idle}


def _last_reads(nodes: Sequence[fx.Node], idle: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """What nothing reads any more once a node is computed."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in idle:
            last |= dict.fromkeys(_read(node, idle), node)
    found: dict[fx.Node, list[fx.Node]] = {}
    for read, reader in last.items():
        found.setdefault(reader, []).append(read)
    return found


def _read(node: fx.Node, idle: set[fx.Node]) -> Iterator[fx.Node]:
    for one in node.all_input_nodes:
        if (
            one in idle or one.target in _READS
        ):  # a kernel reads the codes in front, wherever else their values are read
            yield from _read(one, idle)
        if one not in idle:
            yield one


_KERNELS: dict[Any, Callable[[IntegerExecution, fx.Node, fx.Node], Tensor]] = {
    torch.conv2d: IntegerExecution.conv2d,
    torch.sigmoid: IntegerExecution.sigmoid,
    operator.mul: IntegerExecution.mul,
    operator.add: IntegerExecution.add,
}
