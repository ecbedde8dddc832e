"""QATLinear, QATReLU, QATBatchNorm2d, and the int32 bias."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fxqat.quant.affine import dequantize
from fxqat.quant.bias import LARGEST_BIAS, fake_quantize_bias, quantize_bias
from fxqat.quant.modules import QATBatchNorm2d, QATLinear, QATReLU
from fxqat.quant.spec import QParams, QuantSpec

W8 = QuantSpec(narrow=True, axis=0)
SCALE = torch.tensor([0.02])


def test_linear() -> None:
    linear = nn.Linear(6, 4)
    layer = QATLinear.fused(copy.deepcopy(linear), nn.ReLU())
    x = torch.randn(3, 6)
    assert torch.equal(layer(x), linear(x).relu())
    layer.quantize_weight(W8)
    integer = layer.integer(SCALE)
    assert integer.bias is not None
    numbers = QParams(
        scale=integer.weight_scale,
        zero_point=integer.weight_zero_point,
        quant_min=-127,
        quant_max=127,
        axis=0,
        dtype=torch.int8,
    )
    expected = nn.functional.linear(x, dequantize(integer.weight, numbers), integer.bias * integer.bias_scale).relu()
    torch.testing.assert_close(layer(x, SCALE), expected, rtol=0, atol=0)
    assert torch.equal(layer.to_float()(x), linear(x).relu())


def test_relu_is_relu() -> None:
    assert QATReLU()(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_batch_norm_shares_everything() -> None:
    bn = nn.BatchNorm2d(3, eps=0.5, momentum=0.3)
    ours = QATBatchNorm2d.of(bn)
    x = torch.randn(4, 3, 5, 5)
    ours.train()(x)
    assert ours.running_mean is bn.running_mean
    assert torch.equal(ours.eval()(x), bn.eval()(x))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1.0))
def test_bias_codes(value: float, scale: float) -> None:
    bias, step = torch.tensor([value]), torch.tensor([scale])
    codes = quantize_bias(bias, step)
    assert codes.dtype == torch.int32
    assert torch.equal(fake_quantize_bias(bias, step), codes.float() * step)
    if abs(value) / scale < LARGEST_BIAS:
        error = (codes.double() * step.double() - bias.double()).abs()
        # half a step, and the quotient's float32 rounding
        assert error.item() <= step.item() / 2 + abs(value) * 2**-23
