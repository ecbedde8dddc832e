"""Fake quantization with a gradient: the forward of affine.fake_quantize, and the estimators of its backward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fxqat.quant import compiled_kernels, elementwise
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


class LearnedScale(Function):
    """Learned step size (Esser et al. 2020, arXiv:1902.08153) and, with ``offset``, LSQ+ (arXiv:2004.09576).

    With ``v = x / s``, codes ``c`` relative to the zero point, and n, p the lowest and highest of them::

        dy/dx = 1 where n < v < p, else 0
        dy/ds = c - v where n < v < p, else n or p      (LSQ+: quant_min or quant_max, since the offset moves n and p)
        dy/db = 0 where n < v < p, else 1               (LSQ+: b = -zero_point * s)

    both sums times ``1 / sqrt(N * quant_max)``, N the elements that share the scale. Since ``y = c * s``, the sum over
    ``grad * dy/ds`` is ``(grad . y - grad_x . x) / s``: two dot products instead of six passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, qparams: QParams) -> Tensor:
        """Fake-quantize ``x``; ``scale`` and ``offset`` are the parameters that ``qparams`` was made of."""
        y = forward_values(x, qparams)
        ctx.save_for_backward(x, y)
        ctx.qparams, ctx.has_offset = qparams, offset is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        """Gradients of ``x``, scale and offset."""
        (x, y), (grad,), qparams = ctx.saved_tensors, grads, ctx.qparams
        gain = (x.numel() / qparams.scale.numel() * qparams.quant_max) ** -0.5
        if _scalars_are_free(x, qparams) and grad.dtype == x.dtype and compiled_kernels.applies(x):
            return _compiled_gradients(grad, x, qparams, gain, ctx.has_offset)
        if x.dtype != torch.float32 or grad.dtype != torch.float32:
            x, grad = x.float(), grad.float()
            y = forward_values(x, qparams)
        grad_x = pass_inside(grad, x, qparams, margin=0.0)
        step = (_dot(grad, y, qparams.axis) - _dot(grad_x, x, qparams.axis)) / qparams.scale
        if not ctx.has_offset:
            return grad_x.to(grads[0].dtype), step * gain, None, None
        outside = (grad.sum() - grad_x.sum()).view(1)
        return grad_x.to(grads[0].dtype), (step + outside * qparams.zero_point) * gain, outside * gain, None


def _compiled_gradients(
    grad: Tensor, x: Tensor, qparams: QParams, gain: float, has_offset: bool
) -> tuple[Tensor, Tensor, Tensor | None, None]:
    grad_x, *sums = elementwise.learned_scale(x, grad, numbers_of(qparams, margin=0.0))
    step, outside = (one.view(1) for one in sums)
    if not has_offset:
        return grad_x, step * gain, None, None
    return grad_x, (step + outside * qparams.zero_point) * gain, outside * gain, None


def numbers_of(qparams: QParams, margin: float) -> Tensor:
    """Scale, lowest and highest code relative to the zero point, and the open interval of values whose gradient
    passes, which ends ``margin`` steps outside: what elementwise.py takes."""
    scale, lowest, highest = _scalars(qparams)
    return torch.tensor([scale, lowest, highest, (lowest - margin) * scale, (highest + margin) * scale])


def forward_values(x: Tensor, qparams: QParams) -> Tensor:
    """:func:`affine.fake_quantize`, by the route that is fastest where ``x`` lives."""
    if not _scalars_are_free(x, qparams):
        return fake_quantize(x, qparams)
    scale, lowest, highest = _scalars(qparams)
    if compiled_kernels.applies(x):
        y: Tensor = elementwise.fake_quantized(x, numbers_of(qparams, margin=0.0))
        return y
    codes = x.float().div(qparams.scale).round_().clamp_(lowest, highest)
    # 0 + scale * code in one pass: the sum makes +0.0 of the -0.0 that rounding leaves, as integers do
    torch.add(codes.new_zeros(()), codes, alpha=scale, out=codes)
    return codes.to(x.dtype)


def pass_inside(grad: Tensor, x: Tensor, qparams: QParams, margin: float = 0.5) -> Tensor:
    """``grad`` where ``x`` is less than ``margin`` steps outside the representable values, else 0."""
    if _scalars_are_free(x, qparams) and x.dtype == grad.dtype == torch.float32:
        scale, lowest, highest = _scalars(qparams)
        return torch.ops.aten.hardtanh_backward(grad, x, (lowest - margin) * scale, (highest + margin) * scale)
    scale_, zero_point = along_axis(x, qparams)
    x = x.float()
    inside = x > (qparams.quant_min - zero_point - margin) * scale_
    inside &= x < (qparams.quant_max - zero_point + margin) * scale_
    return torch.where(inside, grad, 0.0)


def _dot(a: Tensor, b: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        return torch.dot(a.reshape(-1), b.reshape(-1)).view(1)
    return (a * b).movedim(axis, 0).flatten(1).sum(dim=1)


def _scalars_are_free(x: Tensor, qparams: QParams) -> bool:
    # reading a scalar makes a GPU wait, and a compiler break its graph
    return qparams.axis is None and x.device.type == "cpu" and not torch.compiler.is_compiling()


def _scalars(qparams: QParams) -> tuple[float, float, float]:
    zero_point = int(qparams.zero_point)
    return float(qparams.scale), float(qparams.quant_min - zero_point), float(qparams.quant_max - zero_point)
