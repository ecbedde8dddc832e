"""Layers whose kernels add two products in 16 bits: every way to a scale keeps the bound of their pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fxqat.passes.corrections.adaround import write_codes
from fxqat.quant.affine import quantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import PAIR_MAX, least_scale, overflow, pair_indices
from fxqat.quant.rounding import Columns, Options, learn_codes
from fxqat.quant.spec import QuantSpec

W8 = QuantSpec(bits=8, narrow=True, axis=0)
ORT, OPENVINO = (Order.ROWS, Order.PIXELS), (Order.ROWS, Order.TAPS)
CONVOLUTIONS = (
    nn.Conv2d(8, 6, 1),
    nn.Conv2d(3, 6, 3, stride=2, padding=1),
    nn.Conv2d(5, 4, 3, padding="same"),
    nn.Conv2d(12, 6, 3, groups=3),
    nn.Conv2d(6, 6, 3, groups=6),
    nn.Conv2d(4, 4, 3, dilation=2, bias=False),
)


def crowded(layer: nn.Conv2d | nn.Linear, seed: int) -> nn.Conv2d | nn.Linear:
    """``layer`` with weights of nearly one size, so that most pairs exceed the bound at plain 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    sign = torch.rand(layer.weight.shape, generator=generator).sub(0.3).sign()
    layer.weight.data = sign * (1 + 0.2 * torch.rand(layer.weight.shape, generator=generator))
    return layer


def pairs_of(module: QATConv2d | QATLinear, orders: tuple[Order, ...]) -> torch.Tensor:
    if isinstance(module, QATLinear):
        return pair_indices(module.weight.shape, orders)
    left = module.zeros_before[1]
    return pair_indices(module.weight.shape, orders, groups=module.groups, stride=module.stride[1], padding=left)


def made(layer: nn.Conv2d | nn.Linear, spec: QuantSpec, orders: tuple[Order, ...]) -> QATConv2d | QATLinear:
    kind = QATLinear if isinstance(layer, nn.Linear) else QATConv2d
    module = kind.fused(layer).eval()
    module.quantize_weight(spec, pair_orders=orders)
    return module


@pytest.mark.parametrize("orders", [ORT, OPENVINO])
@pytest.mark.parametrize("layer", [*CONVOLUTIONS, nn.Linear(13, 6)], ids=str)
@pytest.mark.parametrize(
    "spec",
    [W8, QuantSpec(bits=8, narrow=True), QuantSpec(bits=8, narrow=True, axis=0, power_of_two=True)],
    ids=["channel", "tensor", "powers of two"],
)
def test_integer_weights_keep_the_bound(layer, spec, orders):
    plain, bound = made(crowded(layer, 1), spec, ()), made(crowded(layer, 1), spec, orders)
    pairs = pairs_of(bound, orders)
    depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels
    assert (len(pairs) == 0) == depthwise
    assert overflow(bound.integer(None).weight, pairs) is None
    assert (overflow(plain.integer(None).weight, pairs) is None) == depthwise
    if spec.axis == 0 and not spec.power_of_two:
        wanted = torch.maximum(plain.weight_fake_quant.scale, least_scale(bound.folded()[0], pairs))
        assert torch.equal(bound.weight_fake_quant.scale, wanted)


@pytest.mark.parametrize("scale", ["fixed", "lsq"])
def test_a_scale_obeys_the_bound_while_the_weight_moves(scale):
    module = made(crowded(nn.Conv2d(8, 6, 3), 2), QuantSpec(bits=8, narrow=True, axis=0, scale=scale), ORT)
    x = torch.rand(2, 8, 6, 6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
        assert overflow(module.integer(None).weight, pairs_of(module, ORT)) is None
    if scale == "lsq":
        assert module.weight_fake_quant.scale.grad is not None


def test_four_bits_need_no_bound():
    few = QuantSpec(bits=4, narrow=True, axis=0)
    plain, bound = (made(crowded(nn.Conv2d(8, 6, 3), 3), few, orders) for orders in ((), ORT))
    assert torch.equal(plain.weight_fake_quant.scale, bound.weight_fake_quant.scale)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_learned_rounding_keeps_the_bound_and_its_scale(seed):
    module = made(crowded(nn.Conv2d(6, 4, 1, bias=False), seed), W8, ORT)
    qparams, weight = module.weight_fake_quant.qparams(), module.folded()[0]
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(1, 64, 6, generator=generator)
    columns = Columns(inputs=inputs, targets=inputs @ weight.flatten(1).t() + 0.01)
    codes, _ = learn_codes(weight, None, qparams, columns, 1, nn.Identity(), Options(iterations=20), pairs=module.pairs)
    assert overflow(codes, module.pairs) is None
    assert (
        torch.equal(quantize(weight, qparams).int(), codes)
        or (codes - weight / qparams.scale.view(-1, 1, 1, 1)).abs().max() <= 2
    )
    write_codes(module, codes, qparams)
    found = module.integer(None)
    assert torch.equal(found.weight_scale, qparams.scale)
    assert torch.equal(found.weight.int(), codes)
    assert int(codes.abs().max()) <= PAIR_MAX
