"""absorb_norms: convolutions take over the scale of their batch norms, so that a rate of learning means the same in
each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.quant.modules import QATConv2d


@dataclass(frozen=True, kw_only=True)
class AbsorbNorms(TextPass):
    """Let every batch norm scale by 1, its convolution's weight by what it scaled by; what is computed stays.

    What is quantized is the folded weight ``w * gamma / sqrt(var + eps)``. In YOLOv8n that factor is 0.9 to 23 in the
    median channel of a layer, so that one step of Adam on ``w`` moves some folded weights 25 times as far as others.
    Afterwards gamma is ``sqrt(var + eps)`` and wants no training: the factor is 1, within two roundings. Statistics
    stay, so batch norms may be live, or estimated anew, as before.
    """

    name: str = "absorb_norms"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Change parameters of ``gm`` in place."""
        layers = normed(gm)
        for layer in layers:
            _absorb(layer)
        return PassReport(says=f"{len(layers)} batch norms scale by 1")


def normed(module: nn.Module) -> list[QATConv2d]:
    """Every convolution with a batch norm of its own scale and shift."""
    layers = [one for one in module.modules() if isinstance(one, QATConv2d)]
    return [layer for layer in layers if layer.bn is not None and layer.bn.affine]


@torch.no_grad()
def _absorb(layer: QATConv2d) -> None:
    _, bias = layer.folded()
    norm = layer.bn
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    layer.weight.mul_(factor.view(-1, 1, 1, 1))
    norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
    norm.bias.copy_(bias + norm.running_mean if layer.bias is None else bias + norm.running_mean - layer.bias)
