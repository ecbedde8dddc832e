"""What a runtime computes on codes, read from an INT8 graph."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.graph.site import module_of
from fxqat.quant.arithmetic import Arithmetic
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor

LOWEST = {torch.uint8: 0, torch.int8: -128}
READS = (dequantize_per_tensor, dequantize_per_channel)
OPERANDS: dict[Any, int] = {
    torch.conv2d: 2,
    F.linear: 2,
    torch.sigmoid: 1,
    operator.mul: 2,
    operator.add: 2,
}


def is_fused(node: fx.Node) -> bool:
    """Whether a runtime computes ``node`` on codes: each of its operands is a tensor that was dequantized for it, and a
    quantize alone reads the result, or the result's ReLU (see ``clamps_as_relu``)."""
    operands = node.args[: OPERANDS.get(node.target, 0)]
    if not operands or not all(isinstance(one, fx.Node) for one in operands):
        return False
    return all(one.target in READS for one in node.all_input_nodes) and _is_quantized_alone(node)


def _is_quantized_alone(node: fx.Node) -> bool:
    if len(node.users) != 1:
        return False
    (reader,) = node.users
    return reader.target is quantize_per_tensor or (node.target is torch.conv2d and clamps_as_relu(reader))


def clamps_as_relu(node: fx.Node) -> bool:
    """Whether ``node`` is a ReLU that the clamp of the one quantize behind it computes: the lowest code is 0."""
    if not (node.op == "call_module" and isinstance(module_of(node), nn.ReLU)) or len(node.users) != 1:
        return False
    (reader,) = node.users
    return reader.target is quantize_per_tensor and bool(reader.args[2] == reader.args[3])


def computed_from(n: fx.Node) -> fx.Node | None:
    """The operation on codes whose result ``n``, a quantize, writes; None where a float is quantized."""
    source = n.args[0]
    if isinstance(source, fx.Node) and clamps_as_relu(source):
        source = source.args[0]
    return source if isinstance(source, fx.Node) and is_fused(source) else None


@dataclass(frozen=True, eq=False)
class SiLU:
    """``quantize(dequantize(x) * dequantize(gate))`` with ``gate = quantize(sigmoid(dequantize(x)))``, all nodes."""

    product: Any
    x: Any
    gate: Any

    def table(self, dtype: torch.dtype, arithmetic: Arithmetic) -> Tensor:
        """What becomes of each of the 256 codes of ``dtype``, lowest first, in the type of the result."""
        (last,) = self.product.users
        read = self.gate.args[0].all_input_nodes[0]
        x = torch.arange(256) + LOWEST[dtype]
        gate = arithmetic.sigmoid(x, *read.args[1:3], *self.gate.args[1:5])
        sides = {self.x: x, self.gate: gate}
        a, b = self.product.args
        scales, zeros = (tuple(one.args[place] for one in (a, b, last)) for place in (1, 2))
        return arithmetic.mul(sides[a.args[0]], sides[b.args[0]], scales, zeros, *last.args[3:5]).to(last.args[5])


def silu(n: Any) -> SiLU | None:
    """What ``n`` quantizes, where that is a SiLU of codes."""
    product = n.args[0] if n.target is quantize_per_tensor else None
    if not isinstance(product, fx.Node) or product.target is not operator.mul or not is_fused(product):
        return None
    sides: list[Any] = [one.args[0] for one in product.args]  # type: ignore[union-attr]
    for x, gate in (sides, reversed(sides)):
        squashed = gate.args[0] if gate.target is quantize_per_tensor else x
        if squashed.target is torch.sigmoid and is_fused(squashed) and squashed.all_input_nodes[0].args[0] is x:
            return SiLU(product, x, gate)
    return None


def idle_nodes(nodes: Sequence[fx.Node], silus: Iterable[SiLU]) -> set[fx.Node]:
    """Nodes that need no value of their own: a kernel works on the codes in front of them."""
    idle = {node for node in nodes if is_fused(node)}
    idle |= {node for node in nodes if clamps_as_relu(node) and node.args[0] in idle}
    idle |= {one.gate for one in silus if _reaches_only(one.product, one.gate)}
    return idle | {node for node in nodes if node.target in READS and node.users.keys() <= idle}


def _reaches_only(product: fx.Node, gate: fx.Node) -> bool:
    """Whether codes of ``gate`` are read for ``product`` alone."""
    return all(read.target in READS and read.users.keys() == {product} for read in gate.users)


def last_reads(nodes: Sequence[fx.Node], idle: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
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
        # A kernel reads the codes in front of a dequantize, wherever else its values are read.
        if one in idle or one.target in READS:
            yield from _read(one, idle)
        if one not in idle:
            yield one
