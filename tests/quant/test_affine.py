"""The laws of affine quantization, for any scheme and any range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import beside_ties, ends, specs
from torch import Tensor

from fxqat.quant.affine import SMALLEST_SCALE, choose_qparams, dequantize, fake_quantize, quantize
from fxqat.quant.spec import QParams, QuantSpec

ACT8 = QuantSpec(signed=False, symmetric=False)
Range = tuple[Tensor, Tensor]


def bits_equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


def samples(low: Tensor, high: Tensor, count: int = 257) -> Tensor:
    share = torch.linspace(0, 1, count, dtype=torch.float64)
    return torch.lerp(low.double().clamp(max=0), high.double().clamp(min=0), share).float()


@given(specs(), ends())
@example(ACT8, (torch.tensor([0.0]), torch.tensor([0.0])))  # a dead channel: the scale must not be 0
@example(ACT8, (torch.tensor([1e-45]), torch.tensor([1e-45])))  # denormal: 1e-45 / 255 is 0 in float32
@example(ACT8, (torch.tensor([-3.4e38]), torch.tensor([3.4e38])))  # high - low overflows float32
@example(ACT8, (torch.tensor([5.0]), torch.tensor([6.0])))  # one-sided: without zero, padding is not exact
def test_scale_is_finite_positive_and_zero_is_exact(spec: QuantSpec, limits: Range) -> None:
    qparams = choose_qparams(*limits, spec)
    assert qparams.scale.dtype == torch.float32
    assert qparams.zero_point.dtype == torch.int32
    assert torch.isfinite(qparams.scale).all()
    assert (qparams.scale >= SMALLEST_SCALE).all()
    assert spec.quant_min <= int(qparams.zero_point) <= spec.quant_max
    assert dequantize(quantize(torch.zeros(1), qparams), qparams).item() == 0.0


@given(specs(), ends())
def test_error_within_range_is_half_a_step(spec: QuantSpec, limits: Range) -> None:
    qparams = choose_qparams(*limits, spec)
    x = samples(*limits)
    error = (fake_quantize(x, qparams).double() - x.double()).abs().max()
    # half a step, plus what float32 adds: the scale, the division and the product round once each, and each is worth
    # 2**-24 of the largest magnitude; the range's own end lies at most as much again beyond the last code
    slack = 4 * 2.0**-24 * x.double().abs().max()
    assert error <= qparams.scale.double() / 2 + slack


@given(specs(), ends(), st.integers(0, 2**32 - 1))
def test_codes_in_range_monotone_idempotent(spec: QuantSpec, limits: Range, seed: int) -> None:
    qparams = choose_qparams(*limits, spec)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * qparams.scale * 300
    x = torch.cat([samples(*limits), noise]).sort().values
    codes = quantize(x, qparams).to(torch.int64)
    assert spec.quant_min <= codes.min()
    assert codes.max() <= spec.quant_max
    assert (codes.diff() >= 0).all()
    once = fake_quantize(x, qparams)
    assert bits_equal(fake_quantize(once, qparams), once)


@given(specs(bits=st.integers(2, 8)), ends())
def test_fake_quantize_is_dequantize_of_quantize_beside_ties(spec: QuantSpec, limits: Range) -> None:
    qparams = choose_qparams(*limits, spec)
    zero_point = int(qparams.zero_point)
    codes = range(spec.quant_min - zero_point - 3, spec.quant_max - zero_point + 3)
    x = beside_ties(float(qparams.scale), codes, seed=0)
    assert bits_equal(fake_quantize(x, qparams), dequantize(quantize(x, qparams), qparams))


@given(specs(axis=0), st.lists(ends(), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_per_channel_is_per_tensor_channel_by_channel(spec: QuantSpec, limits: list[Range], seed: int) -> None:
    low, high = (torch.cat(side) for side in zip(*limits, strict=True))
    qparams = choose_qparams(low, high, spec)
    x = (
        torch.randn(len(limits), 3, 5, generator=torch.Generator().manual_seed(seed))
        * qparams.scale.view(-1, 1, 1)
        * 90
    )
    for channel, (one_low, one_high) in enumerate(limits):
        alone = choose_qparams(one_low, one_high, spec)
        alone = QParams(**{**vars(alone), "axis": None})
        assert bits_equal(fake_quantize(x, qparams)[channel], fake_quantize(x[channel], alone))
        assert torch.equal(quantize(x, qparams)[channel], quantize(x[channel], alone))


@given(specs(), ends())
def test_symmetric_and_power_of_two(spec: QuantSpec, limits: Range) -> None:
    qparams = choose_qparams(*limits, spec)
    if spec.symmetric:
        assert int(qparams.zero_point) == -((-spec.quant_min - spec.quant_max) // 2)
    if spec.power_of_two:
        assert torch.frexp(qparams.scale).mantissa.item() == 0.5
        plain = choose_qparams(*limits, QuantSpec(**{**vars(spec), "power_of_two": False}))
        assert plain.scale <= qparams.scale < 2 * plain.scale


def test_the_worked_example() -> None:
    qparams = choose_qparams(torch.tensor(-1.0), torch.tensor(1.55), ACT8)
    assert qparams.scale.item() == pytest.approx(0.01, rel=1e-7)
    assert qparams.zero_point.tolist() == [100]
    assert quantize(torch.tensor([-9.0, -1.0, 0.0, 0.012, 9.0]), qparams).tolist() == [0, 0, 100, 101, 255]
    assert choose_qparams(torch.tensor(-1.0), torch.tensor(0.5), QuantSpec()).scale.item() == 1 / 128
    assert choose_qparams(torch.tensor(-1.0), torch.tensor(0.5), QuantSpec(narrow=True)).scale.item() == pytest.approx(
        1 / 127
    )


@settings(max_examples=30)
@given(st.floats(2**-13, 8, width=32), st.integers(-128, 127))
def test_aten_agrees_away_from_ties(scale: float, zero_point: int) -> None:
    qparams = QParams(
        scale=torch.tensor([scale]),
        zero_point=torch.tensor([zero_point], dtype=torch.int32),
        quant_min=-128,
        quant_max=127,
        axis=None,
        dtype=torch.int8,
    )
    # a tenth of a step from every tie is far more than ATen's product with 1/scale can be off (300 * 2**-23 steps)
    steps = torch.arange(-300, 300)[:, None] + torch.tensor([-0.4, -0.2, 0.0, 0.3, 0.4])
    x = (steps * qparams.scale).flatten()
    ours = fake_quantize(x, qparams)
    assert torch.equal(ours, torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127))
