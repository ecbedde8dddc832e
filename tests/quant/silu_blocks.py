"""QuantizedSiLU of every mix of specs, and one step of training through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fxqat.quant.fake_quantize import FakeQuantize, make_fake_quantize
from fxqat.quant.silu import QuantizedSiLU
from fxqat.quant.spec import QuantSpec

SIGMOID = QuantSpec(signed=False, symmetric=False, fixed=(0.0, 1.0))
SPECS = {
    "fixed": QuantSpec(signed=False, symmetric=False),
    "int8": QuantSpec(),
    "lsq": QuantSpec(signed=False, symmetric=False, scale="lsq"),
    "lsq+": QuantSpec(signed=False, symmetric=False, scale="lsq+"),
    "lsq4": QuantSpec(bits=4, narrow=True, scale="lsq"),
    "u16": QuantSpec(bits=16, signed=False, symmetric=False),
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(spec: QuantSpec, low: float, high: float) -> FakeQuantize:
    made = make_fake_quantize(spec)
    made.disable_observer()
    if spec.fixed is None:
        made.follow(torch.tensor([low]), torch.tensor([high]))
    return made


def block(first: str, last: str) -> tuple[QuantizedSiLU, nn.ModuleList]:
    """Both ends saturate now and then."""
    quantizers = nn.ModuleList(
        [quantizer(SPECS[first], -5.3, 4.1), quantizer(SIGMOID, 0, 1), quantizer(SPECS[last], -0.27, 3.2)]
    )
    return QuantizedSiLU(*quantizers), quantizers


def step(function, x: Tensor, upstream: Tensor, quantizers: nn.ModuleList) -> tuple[Tensor, list[Tensor]]:
    quantizers.zero_grad()
    leaf = x.detach().requires_grad_()
    y = function(leaf)
    y.backward(upstream)
    assert leaf.grad is not None
    return y.detach(), [leaf.grad, *(p.grad.clone() for p in quantizers.parameters())]
