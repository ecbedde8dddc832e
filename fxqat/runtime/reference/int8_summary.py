"""What of an INT8 graph is integer: convolutions, their share of the multiply-adds, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.graph.site import module_of, site_of
from fxqat.models.detector import cut
from fxqat.passes.quant_graph import quant_info
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor

_PROBE = 64  # multiply-adds grow with the area, so one small image tells their shares for any


@dataclass(frozen=True, kw_only=True)
class Account:
    """Layers and tensors of an INT8 reference graph.

    Attributes:
        integer: convolutions and linear layers with integer weight and input.
        layers: all of them.
        share: of the multiply-adds that are integer, 0..1.
        tensors: activations that are rounded.
        floats: sites of float layers by the policy's reason.
    """

    integer: int
    layers: int
    share: float
    tensors: int
    floats: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        words = f"{self.integer} of {self.layers} convolutions integer, {self.share:.1%} of the multiply-adds"
        for why, sites in self.floats.items():
            more = f" and {len(sites) - 1} more" if len(sites) > 1 else ""
            words += f"\nin float: {sites[0]}{more}" + (f" ({why})" if why else "")
        return words


@torch.no_grad()
def account(gm: fx.GraphModule) -> Account:
    """Count in an INT8 reference graph."""
    counter = _Counter(cut(gm, 0))
    counter.run(torch.zeros(1, 3, _PROBE, _PROBE))
    integer = {node for node in counter.macs if _is_integer(node)}
    floats: dict[str, tuple[str, ...]] = {}
    for node in counter.macs.keys() - integer:
        decision = quant_info(node).decision
        why = decision.rule.why if decision else ""
        floats[why] = (*floats.get(why, ()), site_of(node))
    total = sum(counter.macs.values())
    return Account(
        integer=len(integer),
        layers=len(counter.macs),
        share=sum(counter.macs[node] for node in integer) / total if total else 0.0,
        tensors=sum(node.target is quantize_per_tensor for node in gm.graph.nodes),
        floats={why: tuple(sorted(sites)) for why, sites in sorted(floats.items())},
    )


class _Counter(fx.Interpreter):
    """Multiply-adds of each layer."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        weight = self._weight(n)
        if weight is not None:
            self.macs[n] = weight[0].numel() * value.numel()
        return value

    def _weight(self, n: fx.Node) -> Tensor | None:
        if n.op == "call_function" and n.target in _LAYERS and isinstance(n.args[1], fx.Node):
            return self.env[n.args[1]]
        if n.op == "call_module":
            layer = module_of(n)
            layer = layer[0] if isinstance(layer, nn.Sequential) else layer
            return layer.weight if isinstance(layer, (nn.Conv2d, nn.Linear)) else None
        return None


_LAYERS = (torch.conv2d, F.linear)


def _is_integer(node: fx.Node) -> bool:
    reads = (dequantize_per_channel, dequantize_per_tensor)
    return node.op == "call_function" and all(getattr(one, "target", None) in reads for one in node.args[:2])
