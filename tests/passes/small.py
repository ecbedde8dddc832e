"""Small models under small policies, for tests of rules and passes."""

from __future__ import annotations

import torch
from graph.asking import noise, traced
from torch import Tensor, fx, nn

from fxqat.graph.site import site_of
from fxqat.passes import Rules, fusing, preparing
from fxqat.passes.calibrate import observe
from fxqat.policy import Policy
from fxqat.quant.torch_ao import disable_observer

SPECS = """
version: 1
target: ort-cpu
specs:
  a8: {bits: 8, signed: false, symmetric: false}
  w8: {bits: 8, signed: true, symmetric: true, narrow: true, axis: 0}
rules:
"""
ALL = '  - {site: "**", weight: w8, activation: a8}\n'
FLOAT = '  - {site: "**", float: true}\n'


def policy(*rules: str, rest: str = ALL, target: str | None = None) -> Policy:
    """The given rules, then ``rest``."""
    return Policy.parse(SPECS + "".join(f"  - {rule}\n" for rule in rules) + rest, "small.yaml", target=target)


def fused(root: nn.Module) -> fx.GraphModule:
    """``root`` after canonicalize and fuse."""
    return fusing(Rules.load()).run(traced(root))[0]


def quantized(root: nn.Module, *inputs: Tensor, policy: Policy | None = None) -> fx.GraphModule:
    """``root`` fused, with quantizers as ``policy`` says, calibrated on ``inputs``, in eval."""
    gm, _ = preparing(policy or globals()["policy"](), Rules.load()).run(traced(root))
    gm.apply(disable_observer)
    list(observe(gm, inputs))
    return gm.eval()


def node(gm: fx.GraphModule, site: str) -> fx.Node:
    """The node at ``site``."""
    return next(one for one in gm.graph.nodes if site_of(one) == site)


def unit_images() -> Tensor:
    """(2, 4, 8, 8) in 0..1, as the input of a network is."""
    return torch.sigmoid(noise(2, 4, 8, 8))


def conv_bn(*after: nn.Module, out: int = 4, **options: object) -> nn.Sequential:
    """Conv2d(4, out), BatchNorm2d with statistics that are not the defaults, and what comes ``after``."""
    generator = torch.Generator().manual_seed(5)
    norm = nn.BatchNorm2d(out, eps=1e-3)
    norm.running_mean = torch.randn(out, generator=generator)
    norm.running_var = torch.rand(out, generator=generator) + 0.5
    norm.weight.data = torch.randn(out, generator=generator)
    conv = nn.Conv2d(4, out, 3, padding=1, bias=False, **options)  # type: ignore[arg-type]
    conv.weight.data = torch.randn(conv.weight.shape, generator=generator) / 6
    return nn.Sequential(conv, norm, *after)


class ExpectedDistance(nn.Module):
    """The DFL of 4 sides and 4 bins, as the head's adapter writes it."""

    def __init__(self, out: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, out, 1, bias=False)
        self.conv.weight.data = torch.arange(4.0).view(1, 4, 1, 1).expand(out, 4, 1, 1).clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unflatten(1, (4, 4)).transpose(2, 1).softmax(1)).squeeze(1)
