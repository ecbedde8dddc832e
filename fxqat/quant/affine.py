"""Affine quantization as pure functions: range -> scale and zero point, float -> code -> float.

The arithmetic is that of ONNX QuantizeLinear and DequantizeLinear (operator set 19):
``code = clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)`` with a float32 division, and
``value = float32(code - zero_point) * scale``. Multiplying by 1/scale instead differs beside rounding ties
(``python -m bench.division`` counts how often).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxqat.quant.spec import QParams, QuantSpec

# A convolution's bias has the scale s_x * s_w: two scales as small as this still have a normal float32 (2**-124) as
# their product, which no runtime flushes to zero.
SMALLEST_SCALE = 2.0**-62


def choose_qparams(low: Tensor, high: Tensor, spec: QuantSpec) -> QParams:
    """Scale and zero point that cover ``[min(low, 0), max(high, 0)]``.

    Args:
        low: lower ends, shape [1] or [C] (or a scalar), finite.
        high: upper ends, same shape, ``low <= high``.
        spec: the codes, and whether the scheme is symmetric or of powers of two.

    Returns:
        QParams: of shape [1] or [C]; formulas in :func:`scale_and_zero_point`.
    """
    scale, zero_point = scale_and_zero_point(
        low, high, spec.quant_min, spec.quant_max, symmetric=spec.symmetric, power_of_two=spec.power_of_two
    )
    return QParams(
        scale=scale,
        zero_point=zero_point,
        quant_min=spec.quant_min,
        quant_max=spec.quant_max,
        axis=spec.axis,
        dtype=spec.dtype,
    )


def scale_and_zero_point(
    low: Tensor, high: Tensor, quant_min: int, quant_max: int, *, symmetric: bool, power_of_two: bool = False
) -> tuple[Tensor, Tensor]:
    """Float32 scale and int32 zero point, both of shape [1] or [C] (Jacob et al. 2018, arXiv:1712.05877, eq. 1).

    With ``low <= 0 <= high`` after widening (so that zero, hence padding, is exact)::

        symmetric:   z = ceil((quant_min + quant_max) / 2)     s = max(high / (quant_max - z), low / (quant_min - z))
        asymmetric:  s = (high - low) / (quant_max - quant_min)     z = clamp(round(quant_min - low / s))

    ``s`` is at least SMALLEST_SCALE, and rounded up to ``2**ceil(log2 s)`` with ``power_of_two``. Computed in float64,
    in which no float32 range overflows.
    """
    low = torch.atleast_1d(low.detach()).double().clamp(max=0)
    high = torch.atleast_1d(high.detach()).double().clamp(min=0)
    if symmetric:
        middle = -((-quant_min - quant_max) // 2)
        wide = torch.maximum(high / (quant_max - middle), low / (quant_min - middle))
        scale = legal_scale(wide, power_of_two)
        return scale, torch.full_like(scale, middle, dtype=torch.int32)
    scale = legal_scale((high - low) / (quant_max - quant_min), power_of_two)
    zero_point = (quant_min - low / scale.double()).round().clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


def quantize(x: Tensor, qparams: QParams) -> Tensor:
    """Codes of ``x``: same shape, ``qparams.dtype``; ties to even, out of range saturates, NaN is undefined."""
    scale, zero_point = along_axis(x, qparams)
    codes = x.float().div(scale).round_()
    return (codes + zero_point).clamp_(qparams.quant_min, qparams.quant_max).to(qparams.dtype)


def dequantize(codes: Tensor, qparams: QParams) -> Tensor:
    """Float32 values of ``codes``, same shape: ``(code - zero_point) * scale``."""
    scale, zero_point = along_axis(codes, qparams)
    return (codes.to(torch.int32) - zero_point).float() * scale


def fake_quantize(x: Tensor, qparams: QParams) -> Tensor:
    """``dequantize(quantize(x))`` without the integers, in the dtype of ``x``; no gradient of its own.

    Codes relative to the zero point are used throughout: ``clamp(round(x / s), quant_min - z, quant_max - z) * s``
    is the same number with two passes over memory fewer.
    """
    scale, zero_point = along_axis(x, qparams)
    lowest, highest = qparams.quant_min - zero_point, qparams.quant_max - zero_point
    codes = x.float().div(scale).round_().clamp_(lowest, highest)
    # adding zero turns the -0.0 that rounding leaves into the +0.0 that integers give
    return codes.mul_(scale).add_(0.0).to(x.dtype)


def along_axis(x: Tensor, qparams: QParams) -> tuple[Tensor, Tensor]:
    """Scale and zero point shaped to broadcast against ``x``."""
    if qparams.axis is None:
        return qparams.scale, qparams.zero_point
    shape = [1] * x.dim()
    shape[qparams.axis] = -1
    return qparams.scale.view(shape), qparams.zero_point.view(shape)


def legal_scale(wide: Tensor, power_of_two: bool) -> Tensor:
    """Float32 scale that is no smaller than ``wide`` or SMALLEST_SCALE; a power of two where asked for."""
    scale = wide.clamp(min=SMALLEST_SCALE).float()
    if not power_of_two:
        return scale
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).to(exponent.dtype))
