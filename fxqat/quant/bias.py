"""The bias of an integer layer: int32 codes at the accumulator's scale, ``input_scale * weight_scale``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# Half of int32 is left to the sum of products, which is added to the bias in the same accumulator.
LARGEST_BIAS = 2.0**30


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """Int32 codes ``clamp(round(bias / scale), -2**30, 2**30)``; ``scale`` has shape [C] or [1]."""
    return _codes(bias, scale).to(torch.int32)


def fake_quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """Float32 ``code * scale`` of :func:`quantize_bias`, straight through for the gradient."""
    return _BiasStraightThrough.apply(bias, scale)


def smallest_weight_scale(bias: Tensor, input_scale: Tensor) -> Tensor:
    """The weight scale below which the bias would no longer fit, ``|bias| / (2**30 * input_scale)``, shape [C].

    Channels that training has switched off have tiny weights beside a bias of ordinary size.
    """
    return bias.float().abs() / (input_scale.float() * LARGEST_BIAS)


class _BiasStraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, scale: Tensor) -> Tensor:
        return _codes(bias, scale) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _codes(bias: Tensor, scale: Tensor) -> Tensor:
    return bias.float().div(scale).round_().clamp_(-LARGEST_BIAS, LARGEST_BIAS)
