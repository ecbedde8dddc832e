"""Compiled kernels: the bits of the steps forward, their gradients up to the order of sums, and no need of them."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from silu_blocks import block, noise, step
from torch import Tensor

from fxqat.quant import compiled_kernels, elementwise
from fxqat.quant.compiled_kernels import Kernel, kernels
from fxqat.quant.fake_quantize import make_fake_quantize
from fxqat.quant.gradients import LearnedScale, forward_values, numbers_of
from fxqat.quant.spec import QParams, QuantSpec

needs_compiler = pytest.mark.skipif(not compiled_kernels.has_compiler(), reason="no C++ compiler: kernels run as steps")
SPEC = QuantSpec(signed=False, symmetric=False, scale="lsq+")


def qparams(scale: float, zero_point: int) -> QParams:
    spec = QuantSpec(signed=False, symmetric=False)
    return QParams(
        scale=torch.tensor([scale]),
        zero_point=torch.tensor([zero_point], dtype=torch.int32),
        quant_min=spec.quant_min,
        quant_max=spec.quant_max,
        axis=None,
        dtype=spec.dtype,
    )


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32)


@settings(max_examples=40, deadline=None)
@given(st.floats(2**-10, 4, width=32), st.integers(0, 255), st.integers(0, 10**6))
@example(0.25, 128, 0)  # multiples of an eighth: half of them are rounding ties, and -0.0 appears
def test_what_is_compiled_is_what_the_steps_compute(scale: float, zero_point: int, seed: int) -> None:
    numbers = qparams(scale, zero_point)
    x = (noise(2000, seed=seed) * 200 * scale * 8 / scale).round() * scale / 8
    ours = elementwise.fake_quantized.function(x, numbers_of(numbers, 0.0))
    assert torch.equal(bits(ours), bits(forward_values(x, numbers)))
    leaf, learned, offset = (one.clone().requires_grad_() for one in (x, numbers.scale, numbers.scale))
    grad = noise(2000, seed=seed + 1)
    LearnedScale.apply(leaf, learned, offset, numbers).backward(grad)
    through, by_scale, by_offset = elementwise.learned_scale.function(x, grad, numbers_of(numbers, 0.0))
    gain = (2000 * 255) ** -0.5
    assert torch.equal(through, leaf.grad)
    # 2000 terms of up to 255 steps: 2**-24 of each sum's largest partial sum, twice
    assert float(by_offset * gain) == pytest.approx(float(offset.grad), abs=1e-3)
    assert float((by_scale + by_offset * zero_point) * gain) == pytest.approx(float(learned.grad), abs=0.02)


@needs_compiler
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_compiled_silu_is_the_three_modules(layout: torch.memory_format) -> None:
    fast, quantizers = block("lsq", "lsq+")
    x = (noise(2, 10, 60, 70) * 3).contiguous(memory_format=layout)
    upstream = noise(2, 10, 60, 70, seed=1)
    with kernels() as used:
        assert used
        assert compiled_kernels.applies(x)
        ours = step(fast, x, upstream, quantizers)
    theirs = step(fast.step_by_step, x, upstream, quantizers)
    assert torch.equal(bits(ours[0]), bits(theirs[0]))
    torch.testing.assert_close(ours[1][0], theirs[1][0], rtol=1e-5, atol=1e-5)
    for mine, plain in zip(ours[1][1:], theirs[1][1:], strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=2e-4)  # as in test_silu


@needs_compiler
def test_a_compiled_quantizer_is_its_steps() -> None:
    fake = make_fake_quantize(SPEC)
    fake.disable_observer()
    fake.follow(torch.tensor([-1.7]), torch.tensor([2.9]))
    x, upstream = noise(3, 20000) * 2, noise(3, 20000, seed=1)
    results = []
    for wanted in (True, False):
        with kernels(wanted):
            fake.zero_grad()
            leaf = x.clone().requires_grad_()
            y = fake(leaf)
            y.backward(upstream)
        results.append((y.detach(), leaf.grad, fake.scale.grad, fake.offset.grad))
    (y, *ours), (plain, *theirs) = results
    assert torch.equal(bits(y), bits(plain))
    assert torch.equal(ours[0], theirs[0])
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-4)


@needs_compiler
def test_nan_stays_nan_in_a_kernel() -> None:
    """An index made of it would leave the table, and end the process."""
    fast, _ = block("lsq", "lsq")
    x = noise(compiled_kernels.SMALLEST)
    x[7] = torch.nan
    with kernels():
        y = fast(x)
    assert y.isnan().nonzero().tolist() == [[7]]


def test_without_a_compiler_the_steps_run(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with kernels() as used:
        assert not used
        assert not compiled_kernels.applies(noise(compiled_kernels.SMALLEST))


def test_the_switch_goes_back_after_an_error() -> None:
    with pytest.raises(KeyError), kernels():
        raise KeyError
    assert not compiled_kernels.applies(noise(compiled_kernels.SMALLEST))


def test_small_half_and_strided_tensors_are_left_to_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_kernels, "has_compiler", lambda: True)
    x = noise(2, compiled_kernels.SMALLEST)
    with kernels():
        assert compiled_kernels.applies(x)
        assert not compiled_kernels.applies(x[0, :-1])
        assert not compiled_kernels.applies(x.half())
        assert not compiled_kernels.applies(x[:, ::2].expand(2, -1))


def test_a_compiler_that_fails_is_named_once(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def failing(*tensors: Tensor) -> None:
        raise RuntimeError("g++: out of memory\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: failing)

    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    kernel = Kernel(doubled)
    with caplog.at_level(logging.WARNING, logger="fxqat"):
        assert [float(kernel(torch.ones(1))) for _ in range(2)] == [2.0, 2.0]
    assert [record.getMessage() for record in caplog.records] == ["doubled is not compiled: g++: out of memory"]
