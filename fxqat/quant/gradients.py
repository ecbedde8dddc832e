"""Fake quantization with a gradient: the forward of affine.fake_quantize, and the estimators of its backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fxqat.quant.affine import along_axis, fake_quantize
from fxqat.quant.spec import QParams

# Gong et al. 2019 call it alpha: the soft staircase misses the hard one by this share of half a step at its ends
DSQ_ALPHA = 0.2
_DSQ_SLOPE = math.log(2 / DSQ_ALPHA - 1)


class StraightThrough(Function):
    """Gradient 1 where ``x`` rounds to a code within quant_min..quant_max, 0 outside (Bengio et al. 2013).

    Inside is the open interval from half a step below the lowest value to half a step above the highest. ``x`` itself
    is kept for the backward, which then is one fused pass, rather than a mask that costs three passes to make.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, qparams: QParams) -> Tensor:
        """Fake-quantize ``x``."""
        ctx.save_for_backward(x)
        ctx.qparams = qparams
        return forward_values(x, qparams)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient where ``x`` was inside."""
        (x,), (grad,) = ctx.saved_tensors, grads
        return pass_inside(grad, x, ctx.qparams), None


class DifferentiableSoft(Function):
    """The derivative of differentiable soft quantization (Gong et al. 2019, arXiv:1908.05033, eq. 3 to 6).

    Between two codes the soft staircase is ``tanh(k d) / tanh(k / 2) / 2`` of the distance ``d`` (in steps, from -1/2
    to 1/2) to the rounding tie, with ``k = ln(2 / alpha - 1)``. Its slope is largest at ties, of mean 1 over a step.
    Outside the lowest and highest value the gradient is 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, qparams: QParams) -> Tensor:
        """Fake-quantize ``x``."""
        ctx.save_for_backward(x)
        ctx.qparams = qparams
        return forward_values(x, qparams)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Weigh the gradient by the slope of the soft staircase."""
        (x,), (grad,), qparams = ctx.saved_tensors, grads, ctx.qparams
        scale, zero_point = along_axis(x, qparams)
        steps = x.float() / scale
        inside = (steps >= qparams.quant_min - zero_point) & (steps <= qparams.quant_max - zero_point)
        rise = torch.tanh((steps - steps.floor() - 0.5).mul_(_DSQ_SLOPE))
        slope = (1 - rise * rise) * (_DSQ_SLOPE / (2 * math.tanh(_DSQ_SLOPE / 2)))
        return torch.where(inside, grad * slope, 0.0).to(grad.dtype), None


def forward_values(x: Tensor, qparams: QParams) -> Tensor:
    """:func:`affine.fake_quantize`, by the route that is fastest where ``x`` lives."""
    if not _scalars_are_free(x, qparams):
        return fake_quantize(x, qparams)
    scale, lowest, highest = _scalars(qparams)
    codes = x.float().div(qparams.scale).round_().clamp_(lowest, highest)
    # 0 + scale * code in one pass: the sum makes +0.0 of the -0.0 that rounding leaves, as integers do
    torch.add(codes.new_zeros(()), codes, alpha=scale, out=codes)
    return codes.to(x.dtype)


def pass_inside(grad: Tensor, x: Tensor, qparams: QParams) -> Tensor:
    """``grad`` where ``x`` is less than half a step outside the representable values, else 0."""
    if _scalars_are_free(x, qparams) and x.dtype == grad.dtype == torch.float32:
        scale, lowest, highest = _scalars(qparams)
        return torch.ops.aten.hardtanh_backward(grad, x, (lowest - 0.5) * scale, (highest + 0.5) * scale)
    scale_, zero_point = along_axis(x, qparams)
    x = x.float()
    inside = x > (qparams.quant_min - zero_point - 0.5) * scale_
    inside &= x < (qparams.quant_max - zero_point + 0.5) * scale_
    return torch.where(inside, grad, 0.0)


def _scalars_are_free(x: Tensor, qparams: QParams) -> bool:
    # reading a scalar makes a GPU wait, and a compiler break its graph
    return qparams.axis is None and x.device.type == "cpu" and not torch.compiler.is_compiling()


def _scalars(qparams: QParams) -> tuple[float, float, float]:
    zero_point = int(qparams.zero_point)
    return float(qparams.scale), float(qparams.quant_min - zero_point), float(qparams.quant_max - zero_point)
