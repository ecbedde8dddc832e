"""Small networks, quantized as a policy would quantize a detector."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from fxqat.graph.site import assign_sites
from fxqat.passes import Rules, preparing
from fxqat.passes.calibrate import observe
from fxqat.passes.corrections.layerwise import Images, Material
from fxqat.passes.corrections.registry import float_reference
from fxqat.policy import Policy

TEXT = """\
version: 1
target: ort-cpu
specs:
  act8: {bits: 8, signed: false, symmetric: false, observer: histogram, method: mse}
  w8: {bits: BITS, signed: true, symmetric: true, narrow: true, axis: 0, observer: minmax}
rules:
  - {site: "**", weight: w8, activation: act8}
"""


class Block(nn.Module):
    """Conv, BatchNorm, activation."""

    def __init__(self, inputs: int, outputs: int, act: nn.Module | None, *, kernel: int = 3, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Chain(nn.Module):
    """Blocks one after the other, then a convolution with a bias; ``skip`` adds the first block's output again."""

    def __init__(self, act: type[nn.Module], *, groups: int = 1, skip: bool = False) -> None:
        super().__init__()
        self.first = Block(3, 8, act())
        self.second = Block(8, 8, act(), groups=groups)
        self.last = nn.Conv2d(8, 4, 1)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.second(y)
        return self.last(z + y if self.skip else z)


def randomized(net: nn.Module, seed: int = 0) -> nn.Module:
    """``net`` with batch norms that have seen something, one gamma negative, one zero."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.3), (module.bias, -0.5), (module.running_mean, -0.5)):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + low)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.2)
            module.weight.data[0] *= -1
        elif isinstance(module, nn.Conv2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    return net.eval()


def prepared(net: nn.Module, *, bits: int = 8, rules: str = "") -> fx.GraphModule:
    """``net`` with quantizers."""
    gm = fx.symbolic_trace(randomized(net))
    assign_sites(gm.graph)
    text = TEXT.replace("BITS", str(bits)).replace("rules:\n", f"rules:\n{rules}")
    return preparing(Policy.parse(text, "p.yaml"), Rules.load()).run(gm)[0].eval()


def images(count: int = 8, size: int = 16) -> Images:
    batches = list(torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)).split(3))
    return Images(read=lambda: iter(batches), total=count)


def calibrated(net: nn.Module, *, bits: int = 8, rules: str = "") -> tuple[fx.GraphModule, Material]:
    """``net`` with ranges chosen on eight images, and what corrections work with."""
    gm = prepared(net, bits=bits, rules=rules)
    list(observe(gm, images().read()))
    return gm, Material(images=images(), reference=float_reference(gm))
