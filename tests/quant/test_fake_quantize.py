"""Fake quantizers: switches, state, gradients against plain autograd and the papers' formulas."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import ends, specs
from torch import Tensor, nn

from fxqat.errors import Problem
from fxqat.quant.affine import choose_qparams, dequantize, fake_quantize, quantize
from fxqat.quant.fake_quantize import FakeQuantize, LSQFakeQuantize, PerChannelFakeQuantize, make_fake_quantize
from fxqat.quant.gradients import StraightThrough
from fxqat.quant.spec import QuantSpec
from fxqat.quant.torch_ao import (
    FakeQuantizeBase,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
)

ACT8 = QuantSpec(signed=False, symmetric=False)
W8 = QuantSpec(narrow=True, axis=0)
LSQ = QuantSpec(scale="lsq")
LSQ_PLUS = QuantSpec(signed=False, symmetric=False, scale="lsq+")
KINDS = [
    ACT8,
    W8,
    QuantSpec(bits=4, gradient="dsq"),
    QuantSpec(fixed=(0.0, 1.0), signed=False, symmetric=False),
    LSQ,
    LSQ_PLUS,
    QuantSpec(narrow=True, axis=0, scale="lsq"),
    QuantSpec(observer="torch.ao.quantization.observer.MinMaxObserver"),
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def calibrated(spec: QuantSpec, x: Tensor) -> FakeQuantize:
    fake_quant = make_fake_quantize(spec, "model.1", channels=x.shape[0])
    fake_quant.apply(disable_fake_quant)
    assert fake_quant(x) is x
    fake_quant.update_qparams()
    fake_quant.apply(enable_fake_quant)
    fake_quant.apply(disable_observer)
    return fake_quant


@pytest.mark.parametrize("spec", KINDS, ids=str)
class TestEveryKind:
    def test_forward_is_affines(self, spec: QuantSpec) -> None:
        x = noise(3, 40)
        fake_quant = calibrated(spec, x)
        assert isinstance(fake_quant, FakeQuantizeBase)
        y, qparams = fake_quant(x * 1.5), fake_quant.qparams()
        assert torch.equal(y.view(torch.int32), fake_quantize(x * 1.5, qparams).view(torch.int32))
        assert torch.equal(y, dequantize(quantize(x * 1.5, qparams), qparams))

    def test_switches(self, spec: QuantSpec) -> None:
        model = nn.Sequential(make_fake_quantize(spec, channels=3))
        fake_quant = model[0]
        for verb, state in (
            (disable_observer, (False, True)),
            (disable_fake_quant, (False, False)),
            (enable_observer, (True, False)),
            (enable_fake_quant, (True, True)),
        ):
            model.apply(verb)
            assert (fake_quant.observing, fake_quant.quantizing) == state
            assert (bool(fake_quant.observer_enabled), bool(fake_quant.fake_quant_enabled)) == state

    def test_state_dict_into_a_fresh_module(self, spec: QuantSpec) -> None:
        x = noise(3, 40)
        source, fresh = calibrated(spec, x), make_fake_quantize(spec, "other", channels=3)
        fresh.load_state_dict(source.state_dict())
        assert (fresh.observing, fresh.quantizing) == (False, True)
        assert torch.equal(fresh(x), source(x))

    def test_copies_are_independent(self, spec: QuantSpec) -> None:
        x = noise(3, 40)
        source = calibrated(spec, x)
        twin = copy.deepcopy(source)
        before = source(x)
        twin.scale.data.mul_(2)
        assert torch.equal(source(x), before)
        assert not torch.equal(twin(x), before)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, spec: QuantSpec, dtype: torch.dtype) -> None:
        x = noise(3, 40)
        fake_quant = calibrated(spec, x)
        scale = fake_quant.scale.detach().clone()
        fake_quant.to(dtype)
        assert fake_quant.scale.dtype == torch.float32
        assert torch.equal(fake_quant.scale, scale)
        half = x.to(dtype).requires_grad_()
        y = fake_quant(half)
        assert y.dtype == dtype
        assert torch.equal(y, fake_quantize(half.detach().float(), fake_quant.qparams()).to(dtype))
        y.float().sum().backward()
        assert half.grad is not None
        assert half.grad.dtype == dtype
        assert bool(torch.isfinite(half.grad).all())

    def test_prints_its_codes(self, spec: QuantSpec) -> None:
        fake_quant = calibrated(spec, noise(3, 40))
        assert fake_quant.extra_repr().startswith(str(spec))
        assert fake_quant.extra_repr().endswith("off: observer")


def test_kinds() -> None:
    assert type(make_fake_quantize(ACT8)) is FakeQuantize
    assert type(make_fake_quantize(W8, channels=4)) is PerChannelFakeQuantize
    assert type(make_fake_quantize(LSQ)) is LSQFakeQuantize
    assert make_fake_quantize(W8, channels=4).scale.shape == (4,)
    with pytest.raises(
        ValueError, match=r"^channels: None is not legal with i8<-127:127>:axis0, expected the length of"
    ):
        make_fake_quantize(W8)


def test_a_fixed_range_is_right_from_construction() -> None:
    fake_quant = make_fake_quantize(QuantSpec(fixed=(0.0, 1.0), signed=False, symmetric=False))
    assert fake_quant.scale.item() == torch.tensor(1 / 255).item()
    assert fake_quant.zero_point.item() == 0
    fake_quant(torch.tensor([-5.0, 5.0]))
    fake_quant.update_qparams()
    assert fake_quant.scale.item() == torch.tensor(1 / 255).item()


def test_observing_computes_no_parameters_until_asked() -> None:
    fake_quant = make_fake_quantize(ACT8)
    fake_quant.disable_fake_quant()
    for seed in range(3):
        fake_quant(noise(10, seed=seed))
    assert fake_quant.scale.item() == 1.0
    fake_quant.update_qparams()
    assert fake_quant.scale.item() != 1.0


def test_live_follows_every_observed_step() -> None:
    fake_quant = make_fake_quantize(QuantSpec(), live=True)
    for largest in (1.0, 2.0, 4.0):
        fake_quant(torch.tensor([-largest, largest]))
        assert fake_quant.scale.item() == pytest.approx(largest / 127)


def test_called_twice_it_observes_both() -> None:
    fake_quant = make_fake_quantize(ACT8)
    fake_quant.disable_fake_quant()
    fake_quant(torch.tensor([-1.0]))
    fake_quant(torch.tensor([4.1]))
    fake_quant.update_qparams()
    assert fake_quant.scale.item() == pytest.approx(5.1 / 255)


def test_quantizing_without_a_range_is_refused() -> None:
    fake_quant = make_fake_quantize(ACT8, "model.3.act")
    fake_quant.disable_observer()
    message = "model.3.act: quantizes without a range; calibrate it, or load a calibrated checkpoint"
    with pytest.raises(Problem, match=f"^{re.escape(message)}$"):
        fake_quant(torch.ones(3))
    fake_quant.enable_observer()
    assert bool(torch.isfinite(fake_quant(torch.ones(3))).all())  # the first tensor observed is its range


@pytest.mark.parametrize("name", ["torch.ao.quantization.observer.MinMaxObserver", "histogram"])
@pytest.mark.parametrize(("value", "what"), [(torch.nan, "NaN"), (None, "nothing was observed")])
def test_bad_observations_name_the_site(name: str, value: float | None, what: str) -> None:
    fake_quant = make_fake_quantize(QuantSpec(observer=name), "model.7")
    fake_quant.disable_fake_quant()
    if value is not None:
        fake_quant(torch.tensor([value, 1.0]))
    with pytest.raises(Problem, match=rf"^model\.7: {what}"):
        fake_quant.update_qparams()


@given(specs(bits=st.integers(2, 8)), ends(), st.integers(0, 2**32 - 1))
def test_straight_through_is_1_inside_0_outside(spec: QuantSpec, limits: tuple[Tensor, Tensor], seed: int) -> None:
    qparams = choose_qparams(*limits, spec)
    scale, zero_point = qparams.scale.double(), qparams.zero_point
    x = (torch.rand(300, generator=torch.Generator().manual_seed(seed)) * 4 - 2) * scale.float() * 2**spec.bits
    steps = x.double() / scale
    lowest, highest = spec.quant_min - zero_point, spec.quant_max - zero_point
    # beside the border float32 may decide either way
    clear = ((steps - lowest + 0.5).abs() > 1e-3) & ((steps - highest - 0.5).abs() > 1e-3)
    inside = ((steps > lowest - 0.5) & (steps < highest + 0.5)).float()
    x.requires_grad_()
    upstream = torch.arange(300.0) - 150
    StraightThrough.apply(x, qparams).backward(upstream)
    assert x.grad is not None
    assert torch.equal(x.grad[clear], (upstream * inside)[clear])
    assert bool(torch.isfinite(x.grad).all())


def test_per_channel_gradient_is_per_tensors() -> None:
    x = (noise(4, 3, 5) * torch.tensor([0.1, 1, 10, 100]).view(4, 1, 1)).requires_grad_()
    fake_quant = make_fake_quantize(QuantSpec(bits=3, axis=0), channels=4)
    fake_quant.follow(-torch.ones(4), torch.ones(4))
    fake_quant(x).sum().backward()
    for channel in range(4):
        alone = x[channel].detach().requires_grad_()
        one = make_fake_quantize(QuantSpec(bits=3))
        one.follow(-torch.ones(1), torch.ones(1))
        one(alone).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad[channel], alone.grad)


def test_dsq_is_the_slope_of_the_soft_staircase() -> None:
    """Central differences of Gong et al.'s function, in float64."""
    fake_quant = make_fake_quantize(QuantSpec(bits=4, gradient="dsq"))
    fake_quant.follow(torch.tensor([-8.0]), torch.tensor([7.0]))
    assert fake_quant.scale.item() == 1.0
    x = torch.linspace(-9.87, 8.93, 401).requires_grad_()
    fake_quant(x).sum().backward()
    k = math.log(2 / 0.2 - 1)

    def soft(t: Tensor) -> Tensor:
        low = t.floor()
        return torch.where(
            (t < -8) | (t > 7), t.clamp(-8, 7), low + 0.5 + torch.tanh(k * (t - low - 0.5)) / (2 * math.tanh(k / 2))
        )

    t = x.detach().double()
    far = (t - t.round()).abs() > 1e-4  # the slope jumps at the codes
    expected = (soft(t + 1e-6) - soft(t - 1e-6)) / 2e-6
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double()[far], expected[far], rtol=1e-4, atol=1e-5)
    inner = torch.linspace(-8, 7, 15001)[:-1].requires_grad_()
    fake_quant(inner).sum().backward()
    assert inner.grad is not None
    assert inner.grad.mean().item() == pytest.approx(1, abs=1e-3)


def test_compiled_forward_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path without scalars, which GPUs and compilers take."""
    x = noise(3, 40) * 3
    for spec in (ACT8, LSQ, LSQ_PLUS):
        fake_quant = calibrated(spec, x)
        answers = []
        for compiling in (False, True):
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
            leaf = (x * 1.5).requires_grad_()
            y = fake_quant(leaf)
            y.sum().backward()
            answers.append((y.detach(), leaf.grad))
        assert torch.equal(answers[0][0], answers[1][0])
        assert torch.equal(answers[0][1], answers[1][1])
