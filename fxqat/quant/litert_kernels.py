"""The arithmetic of LiteRT's own reference int8 kernels (XNNPACK off), as pure functions of codes.

Every scale becomes an integer multiplier q of 31 bits and a power of two, and is applied in two roundings, as gemmlowp
defined it: the high half of twice the product, then a division by a power of two. Formulas were read in LiteRT's
sources (f674577; files are named below) and tried against ai-edge-litert 2.3: 0 codes differ;
tests/quant/test_litert_kernels.py repeats it. LiteRT's optimized kernels (the resolver without delegates) round
otherwise, and otherwise on each processor; ruy, which sums for them, says of its own that it is not exact to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ADD_SHIFT = 20  # bits that ADD moves its operands up
_LOWEST_CODE = -128
_Q_BITS = 31


def requantize(
    accumulator: Tensor, scales: tuple[float, Tensor, float], zero_point: int, low: int, high: int
) -> Tensor:
    """CONV_2D's and FULLY_CONNECTED's last step, ``clamp(multiply(acc, s_x * s_w / s_y) + z_y)``, scales in float64.

    Source: PopulateConvolutionQuantizationParams in tflite/kernels/kernel_util.cc,
    tflite/kernels/internal/reference/integer_ops/conv.h. Tried with 200 random layers: 291,315 codes.

    Args:
        accumulator: exact integers as float32 or float64, bias included, (N, C, ...).
        scales: s_x, s_w of shape [C] or [1], s_y.
        zero_point: z_y.
        low: lowest code.
        high: highest code.
    """
    s_x, s_w, s_y = scales
    wanted = _float64(s_x) * s_w.double() / _float64(s_y)
    product = multiply(accumulator.long(), wanted.view(1, -1, *[1] * (accumulator.dim() - 2)))
    return torch.clamp(product + zero_point, low, high).float()


def sigmoid(
    codes: Tensor, scale: float, zero_point: int, out_scale: float, out_zero: int, low: int, high: int
) -> Tensor:
    """LOGISTIC: a table of ``clamp(round(float32(1 / (1 + exp(-x))) * float32(1 / s_y)) + z_y)`` with ``x = s_x *
    (code - z_x)``, each step in float32, halves away from zero.

    Source: SigmoidPrepare in tflite/kernels/activations.cc, LUTPopulateInt8 in tflite/kernels/internal/common.h. Tried
    with 300 random scales, all 256 codes each.

    Args:
        codes: of the input, int8 in any integer dtype.
        scale: s_x.
        zero_point: z_x.
        out_scale: s_y; LiteRT demands 1/256.
        out_zero: z_y; LiteRT demands -128.
        low: lowest code.
        high: highest code.
    """
    x = (torch.arange(_LOWEST_CODE, -_LOWEST_CODE) - zero_point) * _float32(scale)
    y = 1 / (1 + torch.exp(-x.double()).float())  # the C library's expf is a rounded exponential
    table = torch.clamp(_round(y * (1 / _float32(out_scale))) + out_zero, low, high)
    return table.to(codes.device)[codes.long() - _LOWEST_CODE]


def mul(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """MUL: ``clamp(multiply((a - z_a)(b - z_b), s_a * s_b / s_y) + z_y)``, scales in float32.

    Source: tflite/kernels/mul.cc, tflite/kernels/internal/reference/integer_ops/mul.h. Tried with 40 random sets of
    scales, all pairs of codes: 2.6 million.

    Args:
        a: codes, any float or integer dtype.
        b: codes.
        scales: (s_a, s_b, s_y).
        zeros: (z_a, z_b, z_y).
        low: lowest code.
        high: highest code.
    """
    s_a, s_b, s_y = (_float32(scale) for scale in scales)
    product = (a.long() - zeros[0]) * (b.long() - zeros[1])
    return torch.clamp(multiply(product, s_a * s_b / s_y) + zeros[2], low, high).float()


def add(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """ADD: ``clamp(multiply(A + B, t / (2**20 s_y)) + z_y)`` with ``A = multiply(2**20 (a - z_a), s_a / t)``, B alike
    and ``t = 2 max(s_a, s_b)``, scales in float64.

    Source: tflite/kernels/add.cc, tflite/kernels/internal/reference/integer_ops/add.h. Tried with 40 random sets of
    scales, all pairs of codes: 2.6 million.

    Args:
        a: codes, any float or integer dtype.
        b: codes.
        scales: (s_a, s_b, s_y).
        zeros: (z_a, z_b, z_y).
        low: lowest code.
        high: highest code.
    """
    s_a, s_b, s_y = (_float64(scale) for scale in scales)
    twice = 2 * torch.maximum(s_a, s_b)
    raised_a, raised_b = ((codes.long() - zero) << _ADD_SHIFT for codes, zero in ((a, zeros[0]), (b, zeros[1])))
    total = multiply(raised_a, s_a / twice) + multiply(raised_b, s_b / twice)
    return torch.clamp(multiply(total, twice / (2**_ADD_SHIFT * s_y)) + zeros[2], low, high).float()


def quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """QUANTIZE of float32: ``clamp(round(x / s) + z)``, halves away from zero.

    Source: tflite/kernels/internal/reference/quantize.h. Tried with 60 random scales, 2,000 numbers each, ties among
    them; every byte / 255 gives the byte.

    Args:
        x: float32.
        scale: s.
        zero_point: z.
        low: lowest code.
        high: highest code.
    """
    return torch.clamp(_round(x / _float32(scale)) + zero_point, low, high)


def multiply(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor`` in integers, rounded twice: MultiplyByQuantizedMultiplier in tflite/kernels/internal/common.cc.

    ``factor = q 2**(e - 31)`` with q rounded to 31 bits; ``h = 2**max(e, 0) x q / 2**31`` to the nearest, halves up,
    then ``h / 2**max(-e, 0)`` to the nearest, halves away from zero.

    Args:
        x: int64, within int32 after it is moved up.
        factor: positive, broadcastable.

    Returns:
        int64.
    """
    q, exponent = _multiplier(factor)
    product = (x << exponent.clamp(min=0)) * q
    nudge = torch.where(product >= 0, 1 << (_Q_BITS - 1), 1 - (1 << (_Q_BITS - 1)))
    high = torch.div(product + nudge, 1 << _Q_BITS, rounding_mode="trunc")
    down = (-exponent).clamp(min=0)
    mask = (1 << down) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> down) + ((high & mask) > threshold)


def _multiplier(factor: Tensor) -> tuple[Tensor, Tensor]:
    """q and e of ``multiply``: QuantizeMultiplier in tflite/kernels/internal/quantization_util.cc."""
    mantissa, exponent = torch.frexp(factor.double())
    q = torch.floor(mantissa * 2**_Q_BITS + 0.5).long()
    full = q == 1 << _Q_BITS
    return torch.where(full, q // 2, q), exponent.long() + full


def _round(x: Tensor) -> Tensor:
    """To the nearest, halves away from zero."""
    whole = torch.floor(x.abs())
    return torch.copysign(whole + (x.abs() - whole >= 0.5), x)


def _float32(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)


def _float64(number: float) -> Tensor:
    return _float32(number).double()
