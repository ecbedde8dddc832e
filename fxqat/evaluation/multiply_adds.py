"""Multiply-adds by site, and how many of them a policy runs as integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxqat.graph.site import site_of
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike
from fxqat.passes.quant_graph import layer_of

_PROBE = 64  # multiply-adds grow with the area, so one small image tells them for any


def macs(gm: fx.GraphModule, imgsz: SizeLike = DEFAULT_SIZE) -> dict[str, int]:
    """Multiply-adds of one image by site of each convolution and linear layer of a fused graph."""
    counter, pixels = _Counter(gm), ImageSize.of(imgsz).pixels
    with torch.no_grad():
        counter.run(torch.zeros(1, 3, _PROBE, _PROBE))
    return {site: count * pixels // (_PROBE * _PROBE) for site, count in counter.counts.items()}


class _Counter(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.counts: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        layer = layer_of(n)
        if layer is not None:
            self.counts[site_of(n)] = layer.weight[0].numel() * value.numel()
        return value
