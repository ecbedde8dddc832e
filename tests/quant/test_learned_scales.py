"""Learned scales: gradients against plain autograd and the papers' formulas, legality, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxqat.quant.affine import SMALLEST_SCALE
from fxqat.quant.fake_quantize import LSQFakeQuantize, make_fake_quantize
from fxqat.quant.spec import QuantSpec

LSQ = QuantSpec(scale="lsq")
LSQ_PLUS = QuantSpec(signed=False, symmetric=False, scale="lsq+")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def calibrated(spec: QuantSpec, x: Tensor) -> LSQFakeQuantize:
    fake_quant = make_fake_quantize(spec, "model.1", channels=x.shape[0])
    assert isinstance(fake_quant, LSQFakeQuantize)
    fake_quant.disable_fake_quant()
    fake_quant(x)
    fake_quant.update_qparams()
    fake_quant.enable_fake_quant()
    fake_quant.disable_observer()
    return fake_quant


def plain_lsq(x: Tensor, scale: Tensor, low: int, high: int, zero_point: int = 0) -> Tensor:
    """The pseudocode of Esser et al., appendix: autograd does the rest."""
    v = (x / scale).clamp(low - zero_point, high - zero_point)
    return (v + (v.round() - v).detach()) * scale


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.booleans(), st.floats(0.0078125, 4, width=32), st.integers(0, 2**32 - 1))
def test_lsq_gradient_is_autograds_of_the_paper(bits: int, per_channel: bool, shrink: float, seed: int) -> None:
    spec = QuantSpec(bits=bits, scale="lsq", axis=0 if per_channel else None)
    x, upstream = noise(4, 3, 50, seed=seed), noise(4, 3, 50, seed=seed + 1)
    fake_quant = calibrated(spec, x)
    fake_quant.scale.data.mul_(shrink * 0.97)  # off the calibrated range, whose end lies on the border itself
    x.requires_grad_()
    (fake_quant(x) * upstream).sum().backward()
    assert x.grad is not None
    assert fake_quant.scale.grad is not None

    scale = fake_quant.scale.detach().double().requires_grad_()
    plain = x.detach().double().requires_grad_()
    shaped = scale.view(-1, 1, 1) if per_channel else scale
    (plain_lsq(plain, shaped, spec.quant_min, spec.quant_max) * upstream).sum().backward()
    assert plain.grad is not None
    assert scale.grad is not None
    torch.testing.assert_close(x.grad.double(), plain.grad, rtol=0, atol=0)
    count = x.numel() / scale.numel()
    # the dot products round to 2**-24 of sums of up to sqrt(count) values, divided by the scale
    largest = x.detach().abs().max() / fake_quant.scale.detach().min()
    torch.testing.assert_close(
        fake_quant.scale.grad.double(),
        scale.grad / math.sqrt(count * spec.quant_max),
        rtol=1e-5,
        atol=float(2**-20 * largest),
    )


def test_lsq_formula_by_hand() -> None:
    """dy/ds: round(v) - v inside, -Qn below, Qp above (equation 3)."""
    fake_quant = make_fake_quantize(QuantSpec(bits=3, scale="lsq"))
    fake_quant.follow(torch.tensor([-4.0]), torch.tensor([3.0]))
    for value, slope in ((1.3, -0.3), (1.7, 0.3), (-9.0, -4.0), (9.0, 3.0), (0.0, 0.0)):
        fake_quant.scale.grad = None
        fake_quant(torch.tensor([value])).sum().backward()
        assert fake_quant.scale.grad.item() == pytest.approx(slope / math.sqrt(3), abs=1e-6)


def test_lsq_plus_gradients_by_hand() -> None:
    """Bhalgat et al. 2020, equations 5 and 6, codes 0..255 with the offset at code 0."""
    fake_quant = make_fake_quantize(LSQ_PLUS)
    fake_quant.follow(torch.tensor([-100.0]), torch.tensor([155.0]))
    gain = 255**-0.5
    for value, by_scale, by_offset in ((10.3, -0.3, 0.0), (-300.0, 0.0, 1.0), (300.0, 255.0, 1.0)):
        fake_quant.zero_grad()
        fake_quant(torch.tensor([value])).sum().backward()
        assert fake_quant.scale.grad.item() == pytest.approx(by_scale * gain, abs=1e-5)
        assert fake_quant.offset.grad.item() == pytest.approx(by_offset * gain, abs=1e-6)


def test_lsq_plus_zero_point_follows_the_offset() -> None:
    fake_quant = make_fake_quantize(LSQ_PLUS)
    fake_quant.follow(torch.tensor([-100.0]), torch.tensor([155.0]))
    assert fake_quant.zero_point.item() == 100
    fake_quant.offset.data.fill_(-60.4)
    assert fake_quant(torch.tensor([-90.0])).item() == -60.0
    assert fake_quant.zero_point.item() == 60
    fake_quant.offset.data.fill_(9.0)  # zero would not be exact any more
    fake_quant(torch.tensor([1.0]))
    assert fake_quant.qparams().zero_point.item() == 0


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_learned_scales_stay_positive(value: float) -> None:
    fake_quant = calibrated(LSQ, noise(3, 4))
    fake_quant.scale.data.fill_(value)
    assert bool(torch.isfinite(fake_quant(noise(3, 4))).all())
    assert fake_quant.scale.item() == SMALLEST_SCALE


def test_learning_lowers_the_error() -> None:
    x = noise(1, 4000)
    fake_quant = calibrated(QuantSpec(bits=3, scale="lsq"), x)
    optimizer = torch.optim.Adam([fake_quant.scale], lr=0.01)
    errors = []
    for _ in range(150):
        optimizer.zero_grad()
        error = nn.functional.mse_loss(fake_quant(x), x)
        error.backward()
        optimizer.step()
        errors.append(error.item())
    # minmax leaves 3 bits of a normal tensor at about 0.1; the best uniform quantizer reaches 0.037 (Max 1960)
    assert errors[0] > 0.08
    assert errors[-1] < 0.05


def test_one_quantizer_twice_in_one_graph() -> None:
    fake_quant = calibrated(LSQ, noise(3, 40))
    x = noise(3, 40).requires_grad_()
    (fake_quant(x) + fake_quant(x * 2)).sum().backward()
    assert fake_quant.scale.grad is not None
