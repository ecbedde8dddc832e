"""QATConv2d and its kin: fusing changes nothing, folding is exact, statistics are right, integers match the float."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxqat.quant.bias import LARGEST_BIAS
from fxqat.quant.modules import (
    QATBatchNorm2d,
    QATConv2d,
    QATLinear,
    freeze_bn_stats,
    update_bn_stats,
)
from fxqat.quant.spec import QuantSpec

W8 = QuantSpec(narrow=True, axis=0)
SCALE = torch.tensor([0.02])


def block(
    *, groups: int = 1, bias: bool = False, eps: float = 1e-3, seed: int = 0, act: nn.Module | None = None
) -> nn.Sequential:
    """Conv, BN with statistics that matter and gammas of both signs, activation; 4 -> 8 channels."""
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
    bn = nn.BatchNorm2d(8, eps=eps, momentum=0.03)
    with torch.no_grad():
        for tensor in (*conv.parameters(), bn.weight, bn.bias, bn.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        bn.running_var.copy_(torch.rand(8, generator=generator) + 0.01)
    return nn.Sequential(conv, bn, act or nn.SiLU())


def fused(layers: nn.Sequential) -> QATConv2d:
    return QATConv2d.fused(*copy.deepcopy(layers))


def image(seed: int = 0) -> Tensor:
    return torch.randn(5, 4, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("training", [False, True])
def test_fusing_changes_nothing(training: bool) -> None:
    layers = block().train(training)
    conv = fused(layers).train(training)
    assert torch.equal(conv(image()), layers(image()))
    assert torch.equal(conv.bn.running_var, layers[1].running_var)
    (conv(image()) ** 2).sum().backward()
    (layers(image()) ** 2).sum().backward()
    assert torch.equal(conv.weight.grad, layers[0].weight.grad)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.booleans(), st.floats(2**-20, 0.5), st.integers(0, 10**6))
def test_folding_is_exact(groups: int, bias: bool, eps: float, seed: int) -> None:
    """Random eps, negative gammas, groups, depthwise (4 of 4)."""
    layers = block(groups=groups, bias=bias, eps=eps, seed=seed).eval()
    expected = layers.double()(image(seed).double())
    folded = fused(layers.float()).eval().to_float()
    assert isinstance(folded[0], nn.Conv2d)
    # 2**-24 for each of 9 * 4 products, their sum, and the factor 1 / sqrt(0.01) on all of it
    torch.testing.assert_close(folded(image(seed)).double(), expected, rtol=1e-5, atol=2e-4)


def test_parameters_are_shared_not_copied() -> None:
    layers = block()
    conv = QATConv2d.fused(*layers)
    assert conv.weight is layers[0].weight
    assert conv.bn is layers[1]
    names = {name for name, _ in conv.named_parameters()}
    assert names == {"weight", "bn.weight", "bn.bias"}


def test_eval_output_is_that_of_its_integers() -> None:
    conv = fused(block()).eval()
    conv.quantize_weight(W8)
    x = (image() / SCALE).round().clamp(-128, 127) * SCALE
    integer = conv.integer(SCALE)
    assert integer.weight.dtype == torch.int8
    assert integer.bias is not None
    assert integer.bias.dtype == torch.int32
    assert torch.equal(integer.bias_scale, SCALE * integer.weight_scale)
    codes = (x / SCALE).round().double()
    sums = nn.functional.conv2d(codes, integer.weight.double(), integer.bias.double(), stride=2, padding=1)
    exact = nn.functional.silu(sums * integer.bias_scale.double().view(1, -1, 1, 1))
    # the float sum of 37 products: 37 * 2**-24 of the largest partial sum, about 100 here
    torch.testing.assert_close(conv(x, SCALE).double(), exact, rtol=1e-5, atol=37 * 2**-24 * 100)


def test_without_an_input_scale_the_bias_stays_float() -> None:
    conv = fused(block()).eval()
    conv.quantize_weight(W8)
    conv.activation = None
    difference = conv(image(), torch.tensor([0.5])) - conv(image())
    assert 0 < difference.abs().max() <= 0.5 * conv.weight_fake_quant.scale.max() / 2 * 1.001


def test_weight_range_follows_the_weight() -> None:
    conv = fused(block()).eval()
    conv.quantize_weight(W8)
    conv(image())
    before = conv.weight_fake_quant.scale.clone()
    conv.weight.data.mul_(0.5)
    conv(image())
    torch.testing.assert_close(conv.weight_fake_quant.scale, before / 2, rtol=0, atol=0)


def test_training_updates_the_running_statistics_as_plain_bn_does() -> None:
    """torch.ao's oracle and ours share the scheme; the plain layers share the statistics, up to weight rounding."""
    layers = block().train()
    conv = fused(layers).train()
    conv.quantize_weight(QuantSpec(bits=8, narrow=True, axis=0))
    for seed in range(3):
        ours, plain = conv(image(seed)), layers(image(seed))
        assert (ours - plain).abs().max() < 0.1
    # the statistics of y are those of conv(x, w_q): weights are off by at most 1/254 of the largest of a channel
    assert (conv.bn.running_mean - layers[1].running_mean).abs().max() < 0.01
    torch.testing.assert_close(conv.bn.running_var, layers[1].running_var, rtol=0.02, atol=0)
    assert conv.bn.num_batches_tracked == 3


def test_training_equals_torch_aos_fused_module() -> None:
    """Independent oracle: torch.ao.nn.intrinsic.qat.ConvBn2d with the same scales."""
    from torch.ao.nn.intrinsic.qat import ConvBn2d
    from torch.ao.quantization import FakeQuantize, PerChannelMinMaxObserver, QConfig, default_observer

    weight = FakeQuantize.with_args(
        observer=PerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )
    layers = block(seed=3).train()
    oracle = ConvBn2d(4, 8, 3, 2, 1, bias=False, eps=1e-3, momentum=0.03, qconfig=QConfig(default_observer, weight))
    oracle.weight.data.copy_(layers[0].weight)
    oracle.bn.load_state_dict(layers[1].state_dict())
    oracle.train()
    oracle.update_bn_stats()
    conv = fused(layers).train()
    conv.activation = None
    conv.quantize_weight(W8)
    for seed in range(2):
        # its observer remembers the widest weight of all steps, ours follows the weight
        oracle.weight_fake_quant.activation_post_process.reset_min_max_vals()
        # torch.ao multiplies by 1/scale: a weight on a rounding tie may land one step away, none does here
        torch.testing.assert_close(conv(image(seed)), oracle(image(seed)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(conv.bn.running_mean, oracle.bn.running_mean)
    torch.testing.assert_close(conv.bn.running_var, oracle.bn.running_var)


def test_frozen_statistics_stay() -> None:
    model = nn.Sequential(fused(block()), QATBatchNorm2d.of(nn.BatchNorm2d(8))).train()
    model[0].quantize_weight(W8)
    model.apply(freeze_bn_stats)
    before = copy.deepcopy(model.state_dict())
    model.train()
    model(image())
    frozen = model.state_dict()
    for name in ("0.bn.running_mean", "0.bn.running_var", "1.running_mean", "1.running_var"):
        assert torch.equal(before[name], frozen[name])
    assert not model[0].bn.training
    model.apply(update_bn_stats)
    model(image())
    assert not torch.equal(before["0.bn.running_mean"], model[0].bn.running_mean)
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)


def test_frozen_training_equals_eval_and_has_gradients() -> None:
    conv = fused(block()).train()
    conv.quantize_weight(W8)
    conv.freeze_bn_stats()
    y = conv(image(), SCALE)
    y.square().sum().backward()
    for parameter in (conv.weight, conv.bn.weight, conv.bn.bias):
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0)
    assert torch.equal(conv.eval()(image(), SCALE), y)


def test_gradient_through_folding_is_the_unquantized_ones() -> None:
    """With 8 bits the straight-through gradient is that of the plain layers, up to what the weight's rounding moves."""
    layers = block(act=nn.Identity()).eval()
    conv = fused(layers).train()
    conv.freeze_bn_stats()
    conv.quantize_weight(W8)
    conv(image()).sum().backward()
    layers(image()).sum().backward()
    # a linear output: its gradient does not depend on the rounded weight at all
    for ours, plain in (
        (conv.weight, layers[0].weight),
        (conv.bn.bias, layers[1].bias),
        (conv.bn.weight, layers[1].weight),
    ):
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("training", [False, True])
def test_dead_channels(training: bool) -> None:
    """gamma == 0 or a silent filter: finite, and the bias keeps its precision in int32."""
    layers = block()
    with torch.no_grad():
        layers[1].weight[2] = 0.0
        layers[0].weight[5] = 0.0
    layers.eval()
    conv = fused(layers).train(training)
    conv.quantize_weight(W8)
    y = conv(image(), SCALE)
    assert bool(torch.isfinite(y).all())
    y.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in conv.parameters() if p.grad is not None)
    conv.eval()
    integer = conv.integer(SCALE)
    bias = conv.folded()[1]
    assert integer.bias is not None
    assert int(integer.bias.abs().max()) <= LARGEST_BIAS
    error = (integer.bias.double() * integer.bias_scale.double() - bias.double()).abs()
    # half a step, or float32's own precision of the value
    assert bool((error <= torch.maximum(integer.bias_scale.double() / 2, bias.double().abs() * 2**-22)).all())


def test_a_learned_weight_scale() -> None:
    conv = fused(block()).train()
    conv.freeze_bn_stats()
    conv.quantize_weight(QuantSpec(narrow=True, axis=0, scale="lsq"))
    scale = conv.weight_fake_quant.scale
    before = scale.detach().clone()
    conv(image()).square().sum().backward()
    torch.optim.SGD([scale], lr=1e-5).step()
    conv(image())
    assert not torch.equal(scale, before)  # it learns, and no forward sets it back to the weight's range


def test_a_learned_weight_scale_never_starts_from_nothing() -> None:
    conv = fused(block()).eval()
    spec = QuantSpec(narrow=True, axis=0, scale="lsq")
    conv.quantize_weight(spec, calibrate=False)
    assert not conv.weight_fake_quant.calibrated_already
    conv(image())
    largest = conv.folded()[0].flatten(1).abs().amax(dim=1)
    torch.testing.assert_close(conv.weight_fake_quant.scale.detach(), largest / 127, rtol=1e-6, atol=0)


def test_per_tensor_weights_too() -> None:
    conv = fused(block()).eval()
    conv.quantize_weight(QuantSpec(narrow=True))
    integer = conv.integer(SCALE)
    assert integer.weight_scale.shape == (1,)
    assert bool(torch.isfinite(conv(image(), SCALE)).all())


def test_switching_the_weights_quantizer_off_gives_the_float_layers() -> None:
    layers = block().eval()
    conv = fused(layers).eval()
    conv.quantize_weight(W8)
    conv.weight_fake_quant.disable_fake_quant()
    # folding reorders the arithmetic: a few float32 roundings of sums up to about 100
    torch.testing.assert_close(conv(image(), SCALE), layers(image()), rtol=1e-5, atol=1e-4)


def test_swapping_the_activation() -> None:
    conv = fused(block()).eval()
    conv.activation = nn.ReLU()
    assert conv(image()).min() == 0
    conv.activation = None
    assert conv(image()).min() < 0


def test_text() -> None:
    conv = fused(block())
    assert conv.extra_repr() == "4->8 k3 s2 BatchNorm2d SiLU"
    conv.quantize_weight(W8)
    assert conv.extra_repr() == "4->8 k3 s2 BatchNorm2d SiLU w=i8<-127:127>:axis0"
    assert fused(block(groups=4)).extra_repr().startswith("4->8 k3 s2 g4")
    assert QATLinear.fused(nn.Linear(3, 5), nn.ReLU()).extra_repr() == "3->5 ReLU"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: QATConv2d.fused(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3)),
            "bn: 3 channels are not legal, expected the convolution's 2",
        ),
        (
            lambda: QATConv2d.fused(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)),
            "bn: no running statistics, expected track_running_stats=True",
        ),
        (
            lambda: QATConv2d.fused(nn.Conv2d(1, 2, 3, padding_mode="reflect")),
            "padding_mode: 'reflect' is not legal, expected 'zeros'",
        ),
        (
            lambda: fused(block()).integer(SCALE),
            "integer: the weight has no quantizer, call quantize_weight first",
        ),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_half_precision() -> None:
    conv = fused(block()).eval()
    conv.quantize_weight(W8)
    expected = conv(image(), SCALE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = conv.to(torch.bfloat16)(image().bfloat16(), SCALE)
    assert half.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits of inputs, weights, and of sums of up to about 30
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
