"""Multiply-adds by site, and how many of them a policy runs as integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fxqat.graph.site import module_of, site_of
from fxqat.quant.modules import QATConv2d, QATLinear

_PROBE = 64  # multiply-adds grow with the area, so one small image tells them for any


def macs(gm: fx.GraphModule, imgsz: int = 640) -> dict[str, int]:
    """Multiply-adds of one image by site of each convolution and linear layer of a fused graph."""
    counter = _Counter(gm)
    with torch.no_grad():
        counter.run(torch.zeros(1, 3, _PROBE, _PROBE))
    return {site: count * (imgsz * imgsz) // (_PROBE * _PROBE) for site, count in counter.counts.items()}


class _Counter(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.counts: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_module" and isinstance(module_of(n), (QATConv2d, QATLinear)):
            self.counts[site_of(n)] = _macs(module_of(n), value)
        return value


def _macs(layer: Any, output: Tensor) -> int:
    each = layer.weight[0].numel()
    return int(each * output.numel())
