"""The arithmetic of XNNPACK's int8 kernels on x86, which LiteRT runs by default, as pure functions of codes.

Each formula was read in XNNPACK's sources (75db3c0; files are named below) and tried against ai-edge-litert 2.3 on
AVX-512 with VNNI: 0 codes differ; tests/quant/test_litert_kernels.py repeats it. The kernels for plain AVX2 and for SSE
are of the same formulas (0 of 880,000 codes differ on processors emulated by qemu, Haswell and Nehalem): they widen
codes to 16 bits before they multiply, so no sum saturates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxqat.quant import ort_kernels

_ADD_BITS = 20  # of the larger multiplier
_LOWEST_CODE = -128
_SIGMOID_END = 100.0  # from here on the sigmoid is 0 or 1 in float32, and a double holds the exponential


def requantize(
    accumulator: Tensor, scales: tuple[float, Tensor, float], zero_point: int, low: int, high: int
) -> Tensor:
    """CONV_2D's and FULLY_CONNECTED's last step: ``clamp(rint(float32(acc) * float32(s_x * s_w / s_y)) + z_y)``, as
    ONNX Runtime's, with ``s_x * s_w / s_y`` rounded to float32 after each of its two operations.

    Source: init_requantization_scale_qx8_qc8w in src/operators/convolution-nhwc.c, src/qs8-gemm/MRx8c8-avx2.c.in and
    MRx16c8-avx512vnni.c.in; the input's zero point is folded into the packed bias, which is exact. Tried with 200
    random layers of 1 to 69 channels, weights of +-127 on inputs of 127 among them: 291,315 codes.

    Args:
        accumulator: exact integers as float32 or float64, bias included, (N, C, ...).
        scales: s_x, s_w of shape [C] or [1], s_y.
        zero_point: z_y.
        low: lowest code.
        high: highest code.
    """
    return ort_kernels.requantize(accumulator, scales, zero_point, low, high)


def sigmoid(
    codes: Tensor, scale: float, zero_point: int, out_scale: float, out_zero: int, low: int, high: int
) -> Tensor:
    """LOGISTIC: a table of ``clamp(rint(float32(e / (1 + e)) * float32(1 / s_y) + z_y))`` with ``e = exp(x)`` in
    float64 and ``x = (code - z_x) * s_x`` in float32; the zero point is added before rounding.

    A MUL of the same input that follows is computed into the table (xnn_subgraph_fuse_unary_quantized_into_lut in
    src/subgraph.c) by the kernels of both, so the codes are those of the two in a row.

    Source: SigmoidOp and unary_ukernel_quantized in src/reference/unary-elementwise.cc. Tried with 600 random scales,
    all 256 codes each, alone and with the MUL.

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
    e = torch.exp(x.double().clamp(-_SIGMOID_END, _SIGMOID_END))
    steps = (e / (1 + e)).float() * (1 / _float32(out_scale)) + out_zero
    return torch.clamp(torch.round(steps), low, high).to(codes.device)[codes.long() - _LOWEST_CODE]


def mul(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """MUL: ``clamp(rint(float32((a - z_a)(b - z_b)) * float32(s_a * s_b / s_y)) + z_y)``; the zero point is added after
    rounding.

    Source: xnn_init_qs8_mul_minmax_scalar_params in src/microparams-init.c, src/qs8-vmul/sse-mul16-ld64.c.in. Tried
    with 100 random sets of scales, all pairs of codes: 6.5 million. XNNPACK for Arm multiplies in integers and rounds
    halves up (src/qs8-vmul/neon.c.in), so there a product on a tie can end one code higher.

    Args:
        a: codes, any float or integer dtype.
        b: codes.
        scales: (s_a, s_b, s_y).
        zeros: (z_a, z_b, z_y).
        low: lowest code.
        high: highest code.
    """
    s_a, s_b, s_y = (_float32(scale) for scale in scales)
    product = (a.float() - zeros[0]) * (b.float() - zeros[1])  # below 2**16, so exact
    return torch.clamp(torch.round(product * (s_a * s_b / s_y)) + zeros[2], low, high)


def add(
    a: Tensor, b: Tensor, scales: tuple[float, float, float], zeros: tuple[int, int, int], low: int, high: int
) -> Tensor:
    """ADD in integers: ``clamp(((a - z_a) m_a + (b - z_b) m_b + 2**(k - 1)) >> k) + z_y)`` with ``m = rint(2**k r)``,
    ``r = float32(s / s_y)`` and k such that the larger m has 21 bits.

    Halves round up. r must lie in [2**-10, 2**8): with other scales LiteRT runs kernels of its own.

    Source: xnn_init_qs8_add_minmax_scalar_params in src/microparams-init.c, src/qs8-vadd/avx512skx-mul32-ld128.c.in;
    the same on Arm. Tried with 100 random sets of scales, all pairs of codes: 6.5 million.

    Args:
        a: codes, any float or integer dtype.
        b: codes.
        scales: (s_a, s_b, s_y).
        zeros: (z_a, z_b, z_y).
        low: lowest code.
        high: highest code.
    """
    s_a, s_b, s_y = (_float32(scale) for scale in scales)
    ratios = torch.stack([s_a / s_y, s_b / s_y])
    shift = _ADD_BITS + 1 - int(torch.frexp(ratios.max()).exponent)
    m_a, m_b = (int(one) for one in torch.round(ratios * 2.0**shift))
    total = (a.long() - zeros[0]) * m_a + (b.long() - zeros[1]) * m_b + (1 << (shift - 1))
    return torch.clamp((total >> shift) + zeros[2], low, high).float()


def quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """QUANTIZE of float32: ``clamp(rint(x * float32(1 / s)) + z)``.

    Source: xnn_init_f32_qs8_cvt_scalar_params in src/microparams-init.c, src/f32-qs8-vcvt/avx512skx.c.in. Tried with 60
    random scales, 2,000 numbers each, ties among them; every byte / 255 gives the byte.

    Args:
        x: float32.
        scale: s.
        zero_point: z.
        low: lowest code.
        high: highest code.
    """
    return torch.clamp(torch.round(x * (1 / _float32(scale))) + zero_point, low, high)


def _float32(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)
