"""What each correction does to the numbers of a small network."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from passes.networks import Block, Chain, calibrated, images, prepared
from torch import nn
from torch.nn import functional as F

from fxqat.graph.site import site_of
from fxqat.passes import Rules, converting
from fxqat.passes.calibrate import observe
from fxqat.passes.corrections.adaround import AdaRound, patches, write_codes
from fxqat.passes.corrections.bias_correction import BiasCorrection, slope
from fxqat.passes.corrections.bn_reestimate import BNReestimate, bn_reestimate, live_norms
from fxqat.passes.corrections.equalize import Equalize, find_pairs
from fxqat.passes.corrections.layerwise import Layer, identity, layers, lockstep
from fxqat.passes.corrections.registry import float_reference
from fxqat.quant.affine import choose_qparams, quantize
from fxqat.quant.modules import QATConv2d, freeze_bn_stats
from fxqat.quant.rounding import Columns, Options, learn_codes, multiply, rectified_sigmoid
from fxqat.quant.spec import QuantSpec
from fxqat.targets import ORT_CPU

WEIGHT = QuantSpec(bits=3, narrow=True, axis=0)


def mean_errors(gm, material, *, weighted):
    """By site: the largest (weighted) mean error of a channel, and the largest error anywhere."""
    found = {}

    def visit(layer, seen):
        weight = torch.cat([slope(layer.activation if weighted else identity, one.reference) ** 2 for one in seen])
        error = torch.cat([one.quantized - one.reference for one in seen])
        mean = (weight * error).sum((0, 2, 3)) / weight.sum((0, 2, 3)).clamp(min=1e-12)
        found[layer.site] = float(mean.abs().max()), float(error.abs().max())

    lockstep(gm, material.reference, list(material.images.read()), visit)
    return found


@pytest.mark.parametrize("act", [nn.SiLU, nn.ReLU])
@pytest.mark.parametrize("weighted", [True, False])
def test_sequential_correction_leaves_no_mean_error(act, weighted):
    gm, material = calibrated(Chain(act), bits=3)
    before = mean_errors(gm, material, weighted=weighted)
    report = BiasCorrection(images=8, weighted=weighted)(gm, material)
    after = mean_errors(gm, material, weighted=weighted)
    assert report.says.startswith("3 layers corrected (sequential, 8 images)")
    for layer in layers(gm):
        # the bias becomes an int32 code of scale s_x * s_w: half of that is left
        step = float((_scale(gm, layer) * layer.module.weight_fake_quant.scale).max())
        (left, _), (was, largest) = after[layer.site], before[layer.site]
        assert was > 0.01 * largest
        # behind other layers, codes that their rounded biases flip: at most another step on average
        assert left <= (0.5 if layer.site == "first.conv" else 1.5) * step + 1e-6
        assert left < 0.3 * was


def test_parallel_correction_removes_the_mean_of_the_uncorrected_network():
    gm, material = calibrated(Chain(nn.SiLU), bits=3)
    first = copy.deepcopy(gm)
    BiasCorrection(images=8, order="parallel")(gm, material)
    BiasCorrection(images=8, order="sequential")(first, material)
    (one, two), (same, other) = [[layers(graph)[i].module for i in (0, 2)] for graph in (gm, first)]
    # alike where nothing stands before; sums in another order
    assert torch.allclose(one.bn.bias, same.bn.bias, atol=1e-6)
    assert not torch.allclose(two.bias, other.bias, atol=1e-4)


def test_the_weighted_shift_has_the_least_error_after_silu():
    """To first order: a shift of either sign away from it is worse."""
    gm, material = calibrated(Chain(nn.SiLU), bits=4)
    found = {}
    lockstep(gm, material.reference, list(images().read()), lambda layer, seen: found.update({layer.site: seen}))
    seen = found["first.conv"]
    quantized, real = (torch.cat([getattr(one, name) for one in seen]) for name in ("quantized", "reference"))
    weight = slope(F.silu, real) ** 2
    shift = -((weight * (quantized - real)).sum((0, 2, 3)) / weight.sum((0, 2, 3))).view(1, -1, 1, 1)

    def error(factor):
        return (F.silu(quantized + factor * shift) - F.silu(real)).square().mean((0, 2, 3))

    # 8 channels; where the mean error is small beside its spread the second order may decide
    assert int((error(1.0) <= error(0.0)).sum()) >= 7
    assert int((error(1.0) <= error(2.5)).sum()) >= 7


def test_a_layer_left_in_float_is_corrected_only_if_asked():
    rule = '  - {site: "last", float: true}\n'
    for wanted, count in ((True, 3), (False, 2)):
        gm, material = calibrated(Chain(nn.SiLU), bits=4, rules=rule)
        bias = layers(gm)[2].module.bias.clone()
        report = BiasCorrection(float_layers=wanted)(gm, material)
        assert report.says.startswith(f"{count} layers corrected")
        assert torch.equal(bias, layers(gm)[2].module.bias) is not wanted


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_shift_reaches_the_output_whatever_carries_it(affine, has_bias):
    net = Chain(nn.SiLU)
    net.second.conv = nn.Conv2d(8, 8, 1, bias=has_bias)
    if not affine:
        net.second.bn = nn.BatchNorm2d(8, affine=False)
        net.second.bn.weight = nn.Parameter(torch.ones(8))  # for randomized(); a norm without affine ignores it
        net.second.bn.bias = nn.Parameter(torch.zeros(8))
    gm, material = calibrated(net, bits=3)
    report = BiasCorrection(images=8)(gm, material)
    assert report.says.startswith("3 layers" if affine or has_bias else "2 layers")
    mean, largest = mean_errors(gm, material, weighted=True)["second.conv"]
    assert (mean < 5e-3 + 1e-3 * largest) is (affine or has_bias)


@pytest.mark.parametrize("function", [F.silu, F.relu, torch.sigmoid])
def test_slope_is_the_derivative(function):
    x = torch.linspace(-5, 5, 11, dtype=torch.float64) + 0.01
    numeric = (function(x + 1e-6) - function(x - 1e-6)) / 2e-6
    # central differences: error 1e-12 of truncation, 1e-10 of rounding
    assert torch.allclose(slope(function, x), numeric, atol=1e-8)


@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU, nn.Identity])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_equalization_keeps_the_output_and_evens_the_ranges(act, groups):
    gm = prepared(Chain(act, groups=groups))
    x = next(iter(images().read()))
    expected = float_reference(gm)(x).detach()
    report = Equalize(rounds=50)(gm)
    found = float_reference(gm)(x)
    assert report.says.startswith("2 pairs equalized")
    # a handful of float32 roundings, 2**-24 each, in sums of up to 72 products
    assert torch.allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for pair in find_pairs(gm)[0]:
        first, second = pair.first.module, pair.second.module
        given = first.folded()[0].abs().flatten(1).amax(1)
        taken = second.folded()[0].reshape(
            second.groups,
            8 // second.groups if second.groups > 1 else -1,
            8 // second.groups,
            second.weight[0, 0].numel(),
        )
        assert torch.allclose(given, taken.abs().amax((1, 3)).flatten(), rtol=0.03)  # 2**0.02, both tolerances


def test_equalization_changes_channels_by_more_than_noise():
    gm = prepared(Chain(nn.ReLU))
    before = layers(gm)[1].module.folded()[0]
    Equalize()(gm)
    assert float((layers(gm)[1].module.folded()[0] / before).abs().max()) > 1.5


def test_equalization_passes_pooling_and_upsampling():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pool, self.up = Block(3, 8, nn.ReLU()), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
            self.last = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.last(self.up(self.pool(self.first(x))))

    gm = prepared(Pooled())
    x = next(iter(images().read()))
    expected = float_reference(gm)(x).detach()
    assert Equalize()(gm).says.startswith("1 pairs equalized")
    assert torch.allclose(float_reference(gm)(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("net", "site", "reason"),
    [
        (Chain(nn.SiLU), "first.conv", "SiLU is not positively homogeneous"),
        (Chain(nn.ReLU, skip=True), "first.conv", "its value has 2 uses"),
        (Chain(nn.ReLU, skip=True), "second.conv", "add is no function of one channel"),
        (Chain(nn.Hardswish), "first.conv", "Hardswish is no function of one channel"),
    ],
)
def test_equalization_refuses_with_a_reason(net, site, reason):
    gm = prepared(net)
    before = {name: value.clone() for name, value in gm.state_dict().items()}
    report = Equalize()(gm)
    assert reason in [miss.reason for miss in report.rewrites.missed if miss.site == site]
    assert reason in report.says
    if site == "first.conv":
        touched = [name for name, value in gm.state_dict().items() if not torch.equal(value, before[name])]
        assert not [name for name in touched if name.startswith("first")]


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), groups=st.sampled_from([1, 2]), per_channel=st.booleans())
def test_learned_codes_are_neighbours_and_never_worse_where_judged(seed, groups, per_channel):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 6, 1, 1, generator=generator)
    spec = WEIGHT if per_channel else QuantSpec(bits=3, narrow=True)
    low, high = (weight.flatten(1).amin(1), weight.flatten(1).amax(1)) if per_channel else (weight.min(), weight.max())
    qparams = choose_qparams(low, high, spec)
    inputs = torch.rand(groups, 64, 6, generator=generator)
    columns = Columns(inputs=inputs, targets=multiply(inputs, weight, None, groups))
    codes, gain = learn_codes(weight, None, qparams, columns, groups, F.silu, Options(iterations=100))
    exact = weight / qparams.scale.view(-1, 1, 1, 1)
    # a float32 quotient may fall on the other side of an integer it is beside
    assert bool(((codes - exact).abs() < 1 + 1e-5).all())
    assert 0 <= gain <= 1
    if gain == 0:
        assert torch.equal(codes, quantize(weight, qparams).int())
    # the range is what it was, so the scale that follows the weight is the same
    ends = (codes == spec.quant_max) | (codes == spec.quant_min)
    assert bool(ends.flatten(1).any(1).all() if per_channel else ends.any())


def test_rounding_is_learned_where_nearest_is_poor():
    """All inputs alike: the sum of the rounding errors counts, and rounding to nearest does not look at it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(8, 64, 1, 1, generator=generator) * 0.3 + 0.05
    weight[:, 0] = 1.0
    qparams = choose_qparams(torch.zeros(8), torch.ones(8), WEIGHT)
    inputs = 1 + 0.1 * torch.rand(1, 256, 64, generator=generator)
    columns = Columns(inputs=inputs, targets=multiply(inputs, weight, None, 1))
    _, gain = learn_codes(weight, None, qparams, columns, 1, identity, Options())
    assert gain > 0.8


def test_the_rectified_sigmoid_reaches_both_ends():
    v = torch.tensor([-4.0, 0.0, 4.0])
    assert rectified_sigmoid(v).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2}, {"padding": 0}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"padding": "same"}]
)
def test_patches_times_weight_is_the_convolution(geometry):
    conv = QATConv2d.fused(nn.Conv2d(4, 6, 3, **{"padding": 1, **geometry}))
    x = torch.rand(1, 4, 9, 8)
    with torch.no_grad():
        expected = conv(x)[0]
        rows, columns = torch.tensor([0, 1, expected.shape[1] - 1]), torch.tensor([0, 2, expected.shape[2] - 1])
        found = multiply(patches(conv, x, rows, columns), conv.weight, conv.bias, conv.groups)
    # 36 products summed in another order
    assert torch.allclose(found.transpose(1, 2).flatten(0, 1), expected[:, rows, columns], atol=1e-5)


@pytest.mark.parametrize("act", [nn.SiLU, nn.ReLU])
def test_convert_finds_exactly_the_codes_that_were_learned(act, monkeypatch):
    gm, material = calibrated(Chain(act), bits=4)
    layers(gm)[0].module.bn.weight.data[1] = 0.0
    written = {}

    def spy(module, codes, qparams):
        written[id(module)] = codes.clone()
        write_codes(module, codes, qparams)

    monkeypatch.setattr("fxqat.passes.corrections.adaround.write_codes", spy)
    nearest = [layer.module.integer(_scale(gm, layer)).weight for layer in layers(gm)]
    report = AdaRound(images=8, columns=256, iterations=200)(gm, material)
    assert report.says.startswith(f"{len(written)} of 3 weights rounded by learning")
    assert len(written) >= 2
    lowered, _ = converting(Rules.load(), ORT_CPU).run(gm)
    stored = dict(lowered.named_buffers())
    for before, layer in zip(nearest, layers(gm), strict=True):
        if id(layer.module) not in written:
            continue
        codes = stored[f"integer.{layer.site.replace('.', '_')}.weight"]
        assert torch.equal(codes.int(), written[id(layer.module)])
        assert not torch.equal(codes, before)


def test_learned_rounding_brings_the_output_nearer():
    gm, material = calibrated(Chain(nn.SiLU), bits=3)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(9))  # not among the calibration images
    with torch.no_grad():
        expected, before = material.reference(x), gm(x)
        AdaRound(images=8, iterations=300)(gm, material)
        after = gm(x)
    assert float((after - expected).square().mean()) < 0.7 * float((before - expected).square().mean())


def _scale(gm, layer: Layer):
    owner, _, name = str(layer.node.args[1].target).rpartition(".")
    return getattr(gm.get_submodule(owner), name)


def test_reestimation_of_a_float_network_is_the_statistics_of_its_batch():
    gm, material = calibrated(Chain(nn.SiLU))
    gm = material.reference
    x = torch.cat(list(images().read()))
    conv = layers(gm)[0].module
    with torch.no_grad():
        y = F.conv2d(x, conv.weight, None, padding=1)
    training = [norm.training for norm in live_norms(gm)]
    bn_reestimate(gm, material, images=8, batch=3)
    # sums of 2048 values in float64 against float32's
    assert torch.allclose(conv.bn.running_mean, y.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(conv.bn.running_var, y.var((0, 2, 3)), rtol=1e-4)
    assert [norm.training for norm in live_norms(gm)] == training
    assert [norm.momentum for norm in live_norms(gm)] == [0.1, 0.1]
    assert int(conv.bn.num_batches_tracked) == 0


def test_a_frozen_batch_norm_stays():
    gm, material = calibrated(Chain(nn.SiLU))
    gm.apply(freeze_bn_stats)
    before = layers(gm)[0].module.bn.running_mean.clone()
    report = BNReestimate()(gm, material)
    assert report.says == "nothing to re-estimate: no batch norm is live"
    assert torch.equal(before, layers(gm)[0].module.bn.running_mean)


def test_reestimation_repairs_statistics_that_lag_behind():
    gm, material = calibrated(Chain(nn.SiLU))
    x = torch.cat(list(images().read()))
    for norm in live_norms(gm):
        norm.running_mean += 1.0
    BNReestimate(images=8, batch=8)(gm, material)
    norm = layers(gm)[0].module.bn
    with torch.no_grad():
        y = F.conv2d(x, layers(gm)[0].module.weight, None, padding=1)
    # the weight is quantized: 8 bits of the largest of 27 weights move a mean by less than 27 / 2 / 127 of it
    assert torch.allclose(norm.running_mean, y.mean((0, 2, 3)), atol=0.1)
    assert [site_of(layer.node) for layer in layers(gm)] == ["first.conv", "second.conv", "last"]


def test_observing_again_after_corrections_still_works():
    gm, material = calibrated(Chain(nn.SiLU))
    BiasCorrection()(gm, material)
    assert list(observe(gm, images().read()))[-1] == 8
