"""The arithmetic of ONNX Runtime's integer kernels on x86, as pure functions of codes.

Each formula was found by comparing with the runtime (1.31, AVX-512 and FMA) over all pairs of codes under 150
random sets of scales, 9.8 million results each, 0 differing; tests/quant/test_kernels.py repeats it. They differ
from ``quantize(op(dequantize(...)))`` in where they round: beside ties by 1 LSB, which a deep network then
amplifies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def requantize_accumulator(accumulator: Tensor, multiplier: Tensor, zero_point: int, low: int, high: int) -> Tensor:
    """QLinearConv's last step: ``clamp(rint(float32(acc) * float32(s_x * s_w / s_y)) + z_y, low, high)``.

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
    """QLinearSigmoid: a table of ``quantize(sigmoid(dequantize(code)))``, so the plain formula.

    The sigmoid is taken in float64 and rounded to float32: nearer to the runtime's polynomial than float32's own.
    """
    x = (codes.float() - zero_point) * torch.tensor(scale, dtype=torch.float32)
    y = torch.sigmoid(x.double()).float()
    return torch.clamp(torch.round(y / torch.tensor(out_scale, dtype=torch.float32)) + out_zero, low, high)


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


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()
