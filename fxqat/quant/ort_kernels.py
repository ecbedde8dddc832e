"""The arithmetic of ONNX Runtime's integer kernels on x86, as pure functions of codes.

Each formula was found by comparing with the runtime (1.31, AVX-512 and FMA) over all pairs of codes under 150
random sets of scales, 9.8 million results each, 0 differing; tests/quant/test_kernels.py repeats it. They differ
from ``quantize(op(dequantize(...)))`` in where they round: beside ties by 1 LSB, which a deep network then
amplifies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_LOWEST_CODE = -128
_EXACT = 2**24  # float32 holds every integer up to here
# Of MLAS, highest power first.
_LOGISTIC_P = (
    4.37031012579801e-11,
    1.15627324459942e-07,
    6.08574864600143e-05,
    8.51377133304701e-03,
    2.48287947061529e-01,
)
_LOGISTIC_Q = (
    6.10247389755681e-13,
    5.76102136993427e-09,
    6.29106785017040e-06,
    1.70198817374094e-03,
    1.16817656904453e-01,
    9.93151921023180e-01,
)


def exact_conv(codes: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
    """The convolution of integers -255..255 and int8 weights and its int32 bias, exact, as float32 or float64.

    float32 holds every sum of integers below 2**24, whatever the order of the additions, so one float32 convolution is
    exact where no channel can reach that. Else, where it can, it takes two of the codes' halves (``x = 16 h + l``),
    which is twice as fast as one in float64.

    Args:
        codes: (N, C, H, W) float32, zero point taken off.
        weight: codes (O, C / groups, kH, kW).
        bias: int32 (O,).
        geometry: stride, padding, dilation, groups.

    Returns:
        (N, O, H', W'), integers as float32 or float64.
    """
    kernel = weight.float()
    reach = 255 * kernel.abs().sum((1, 2, 3))
    whole = reach if bias is None else reach + bias.abs()
    if whole.max() < _EXACT:
        return F.conv2d(codes, kernel, None if bias is None else bias.float(), *geometry)
    if reach.max() / 16 >= _EXACT:
        total = F.conv2d(codes.double(), kernel.double(), None, *geometry)
    else:
        upper = torch.floor(codes / 16)
        total = F.conv2d(codes - 16 * upper, kernel, None, *geometry).double()
        total.add_(F.conv2d(upper, kernel, None, *geometry).double(), alpha=16)
    return total if bias is None else total.add_(bias.view(1, -1, 1, 1))


def requantize(
    accumulator: Tensor, scales: tuple[float, Tensor, float], zero_point: int, low: int, high: int
) -> Tensor:
    """QLinearConv's last step: the codes of sums (N, C, ...).

    Args:
        accumulator: exact integers as float32 or float64, bias included.
        scales: s_x, s_w of shape [C] or [1], s_y.
        zero_point: z_y.
        low: lowest code.
        high: highest code.
    """
    by_channel = multiplier(*scales).view(1, -1, *[1] * (accumulator.dim() - 2))
    return requantize_accumulator(accumulator, by_channel, zero_point, low, high)


def requantize_accumulator(accumulator: Tensor, multiplier: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """``clamp(rint(float32(acc) * float32(s_x * s_w / s_y)) + z_y, low, high)``.

    Args:
        accumulator: exact integers as float64, bias included, (N, C, ...).
        multiplier: float32, broadcastable: ``s_x * s_w / s_y`` for each channel.
        zero_point: z_y.
        low: lowest code.
        high: highest code.
    """
    return torch.clamp(torch.round(accumulator.float() * multiplier) + zero_point, low, high)


def multiplier(input_scale: float, weight_scale: Tensor, output_scale: float) -> Tensor:
    """``s_x * s_w / s_y`` rounded to float32 after each of its two operations, shape [C]."""
    return (
        torch.tensor(input_scale, dtype=torch.float32) * weight_scale / torch.tensor(output_scale, dtype=torch.float32)
    )


def sigmoid(
    codes: Tensor, scale: float, zero_point: int, out_scale: float, out_zero: int, low: int, high: int
) -> Tensor:
    """QLinearSigmoid: ``quantize(logistic(dequantize(code)))``, which the runtime keeps as a table of 256."""
    every = torch.arange(_LOWEST_CODE, 256)
    x = (every - zero_point) * torch.tensor(scale, dtype=torch.float32)
    y = torch.round(logistic(x) / torch.tensor(out_scale, dtype=torch.float32)) + out_zero
    return torch.clamp(y, low, high).to(codes.device)[codes.long() - _LOWEST_CODE]


def logistic(x: Tensor) -> Tensor:
    """The runtime's float32 sigmoid: ``clamp(x P(x^2) / Q(x^2) + 1/2, 0, 1)`` for x clamped to +-18, by Horner's rule
    with fused multiply-adds (MLAS, ``logistic.cpp``). It is up to 3 units in the last place from the rounded sigmoid,
    enough to move a code where the sigmoid lies on a tie."""
    x = x.clamp(-18.0, 18.0)
    square = x * x
    ratio = _horner(_LOGISTIC_P, square) * x / _horner(_LOGISTIC_Q, square)
    return torch.clamp(ratio + 0.5, 0.0, 1.0)


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """In float32, each step rounded once: a product of float32 is exact in float64."""
    total = torch.full_like(x, coefficients[0])
    for one in coefficients[1:]:
        total = (total.double() * x.double() + float(torch.tensor(one, dtype=torch.float32))).float()
    return total


def mul(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """QLinearMul: ``clamp(rint((a - z_a)(b - z_b) * (s_a * s_b / s_y) + z_y))``, each step in float32.

    The zero point is added before rounding.

    Args:
        a: codes, any float or integer dtype.
        b: codes.
        scales: (s_a, s_b, s_y).
        zeros: (z_a, z_b, z_y).
        low: lowest code.
        high: highest code.
    """
    s_a, s_b, s_y = (torch.tensor(scale, dtype=torch.float32) for scale in scales)
    product = (a.float() - zeros[0]) * (b.float() - zeros[1])  # below 2**16, so exact
    return torch.clamp(torch.round(product * (s_a * s_b / s_y) + zeros[2]), low, high)


def add(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """QLinearAdd: ``rint(fma(r_a, a, fma(r_b, b, z_y - fma(r_a, z_a, r_b z_b))))`` with ``r = s / s_y``, in float32.

    A fused multiply-add rounds once: here the product is exact in float64 and the sum is rounded to float32.
    """
    s_a, s_b, s_y = (torch.tensor(scale, dtype=torch.float32) for scale in scales)
    r_a, r_b = s_a / s_y, s_b / s_y
    z_a, z_b, z_y = (torch.tensor(float(zero)) for zero in zeros)
    fixed = z_y - _fma(r_a, z_a, r_b * z_b)
    return torch.clamp(torch.round(_fma(r_a, a.float(), _fma(r_b, b.float(), fixed))), low, high)


def quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """QuantizeLinear: ``clamp(rint(x / s) + z, low, high)``, in float32."""
    return torch.clamp(torch.round(x / torch.tensor(scale, dtype=torch.float32)) + zero_point, low, high)


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()
