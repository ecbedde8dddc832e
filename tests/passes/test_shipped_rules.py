"""Every rule in patterns/: a case where it fires, asked three questions, and a near miss with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from graph.asking import applying, ask, noise, traced
from passes.small import FLOAT, ExpectedDistance, conv_bn, fused, node, policy, quantized, unit_images
from torch import Tensor, fx, nn

from fxqat.graph.match import NoMatch
from fxqat.graph.site import module_of, site_of
from fxqat.passes import Rules, converting
from fxqat.passes.quant_graph import QuantGraph, annotate, quant_info
from fxqat.quant.spec import QuantSpec
from fxqat.targets import TARGETS

A8 = QuantSpec(bits=8, signed=False, symmetric=False)
EPS = 2**-23  # float32: the gap between 1 and the next number


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where a rule fires, how far its numbers may move, and where it says no and why."""

    fires: Callable[[], fx.GraphModule]
    within: float
    misses: Callable[[], fx.GraphModule]
    at: str
    reason: str
    inputs: Callable[[], Tensor] = unit_images


def wanted_integer(gm: fx.GraphModule) -> fx.GraphModule:
    """Write into every node what a policy of all INT8 would."""
    for one in gm.graph.nodes:
        annotate(one, activation=A8)
    return gm


def pooled() -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), *conv_bn())


def gated() -> fx.GraphModule:
    return wanted_integer(fused(conv_bn(nn.SiLU())))


def normed() -> nn.Sequential:
    """A batch norm that no convolution stands before."""
    return nn.Sequential(nn.MaxPool2d(2), conv_bn()[1])


class Parallel(nn.Module):
    """Two convolutions of one input, added, then SiLU: RepConv."""

    def __init__(self, small: int = 1) -> None:
        super().__init__()
        self.large, self.bn = conv_bn()
        self.small, self.bn_small = nn.Conv2d(4, 4, small, padding=1 if small > 1 else 0, bias=False), conv_bn()[1]
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.large(x)) + self.bn_small(self.small(x)))


def no_statistics() -> nn.Sequential:
    block = conv_bn(nn.SiLU())
    block[1] = nn.BatchNorm2d(4, track_running_stats=False)
    return block


class Forked(nn.Module):
    """The batch norm's result goes to the activation and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.act = *conv_bn(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return self.act(y) + y


CASES = {
    # The convolution pads by the same function.
    "padding_by_itself": Case(
        fires=lambda: traced(conv_bn(padding_mode="reflect")),
        within=0,
        misses=lambda: traced(conv_bn()),
        at="0",
        reason="it pads with zeros",
    ),
    # The fused module runs the same three layers one after the other.
    "conv_bn_silu": Case(
        fires=lambda: traced(conv_bn(nn.SiLU())),
        within=0,
        misses=lambda: traced(no_statistics()),
        at="2",
        reason="bn: no running statistics, expected track_running_stats=True",
    ),
    "conv_bn_relu": Case(
        fires=lambda: traced(conv_bn(nn.ReLU())),
        within=0,
        misses=lambda: traced(Forked()),
        at="act",
        reason="is also used by add",
    ),
    "conv_bn": Case(
        fires=lambda: traced(conv_bn(nn.LeakyReLU())),
        within=0,
        misses=lambda: traced(conv_bn(padding_mode="reflect")),
        at="1",
        reason="padding_mode: 'reflect' is not legal, expected 'zeros'",
    ),
    "conv_silu": Case(
        fires=lambda: traced(nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU())),
        within=0,
        misses=lambda: traced(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.SiLU())),
        at="1",
        reason="padding_mode: 'reflect' is not legal, expected 'zeros'",
    ),
    "conv_relu": Case(
        fires=lambda: traced(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())),
        within=0,
        misses=lambda: traced(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU())),
        at="1",
        reason="padding_mode: 'reflect' is not legal, expected 'zeros'",
    ),
    "conv_alone": Case(
        fires=lambda: traced(nn.Sequential(nn.Conv2d(4, 2, 3, stride=2, groups=2))),
        within=0,
        misses=lambda: traced(nn.Sequential(nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"))),
        at="0",
        reason="padding_mode: 'circular' is not legal, expected 'zeros'",
    ),
    # Sums of 36 and 4 products, added before instead of after their batch norms' factors, |y| below 16.
    "parallel_convs_silu": Case(
        fires=lambda: traced(Parallel()),
        within=16 * 40 * EPS,
        misses=lambda: traced(Parallel(small=2)),
        at="act",
        reason="two convolutions that see other places are not legal, expected one centred in the other",
    ),
    # The same 4 products in another order, |y| below 4.
    "transposed_conv": Case(
        fires=lambda: traced(nn.Sequential(nn.ConvTranspose2d(4, 3, 2, 2))),
        within=4 * 4 * EPS,
        misses=lambda: traced(nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2))),
        at="0",
        reason="a transposed convolution whose places overlap is not legal, expected kernel and stride alike",
    ),
    "norm_alone": Case(
        fires=lambda: traced(normed()),
        within=0,
        misses=lambda: traced(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False))),
        at="0",
        reason="no running statistics, expected track_running_stats=True",
    ),
    "linear": Case(
        fires=lambda: traced(nn.Sequential(nn.Linear(8, 2))),
        within=0,
        misses=lambda: traced(nn.Sequential(nn.Bilinear(1, 1, 1), nn.SiLU())[1:]),
        at="1",
        reason="is SiLU, not Linear",
    ),
    # v * sigmoid(v) rounds twice; |v| stays below 8.
    "silu_as_sigmoid_and_mul": Case(
        fires=gated,
        within=8 * 2 * EPS,
        misses=lambda: wanted_integer(fused(conv_bn(nn.ReLU()))),
        at="0",
        reason="its activation is not SiLU",
    ),
    # 4 products of at most 3, softmax exact to a few ulp.
    "dfl_as_one_product": Case(
        fires=lambda: fused(nn.Sequential(ExpectedDistance())),
        within=3 * 8 * EPS,
        misses=lambda: fused(nn.Sequential(ExpectedDistance(out=2))),
        at="0.squeeze",
        reason="it is no expectation in float",
        inputs=lambda: noise(2, 16, 5),
    ),
    "nothing_to_train": Case(
        fires=lambda: quantized(nn.Sequential(nn.Dropout(0.5), *conv_bn()), unit_images()),
        within=0,
        misses=lambda: quantized(pooled(), unit_images()),
        at="0",
        reason="is MaxPool2d, not TrainingOnly or Dropout",
    ),
    # Sums of 36 products, scaled before instead of after: |y| below 16, 36 roundings.
    "float_layer": Case(
        fires=lambda: quantized(conv_bn(nn.SiLU()), unit_images(), policy=policy(rest=FLOAT)),
        within=16 * 36 * EPS,
        misses=lambda: quantized(conv_bn(), unit_images()),
        at="0",
        reason="has 2 inputs, the pattern has 1",
    ),
    # One product and one sum in the place of a difference, two products and a sum: |y| below 8, four roundings.
    "float_norm": Case(
        fires=lambda: quantized(normed(), unit_images(), policy=policy(rest=FLOAT)),
        within=8 * 4 * EPS,
        misses=lambda: quantized(conv_bn(), unit_images(), policy=policy(rest=FLOAT)),
        at="0",
        reason="is QATConv2d, not QATBatchNorm2d",
    ),
    # The same integers times the same scales, in floats: what differs is removed by the quantizer behind it.
    "integer_layer": Case(
        fires=lambda: quantized(conv_bn(nn.SiLU()), unit_images()),
        within=0,
        misses=lambda: quantized(conv_bn(), unit_images(), policy=policy(rest=FLOAT)),
        at="0",
        reason="has 1 inputs, the pattern has 2",
    ),
    "integer_layer_float_bias": Case(
        fires=lambda: quantized(conv_bn(nn.SiLU()), unit_images(), policy=policy(target="openvino")),
        within=0,
        misses=lambda: quantized(conv_bn(), unit_images(), policy=policy(rest=FLOAT)),
        at="0",
        reason="its weight is not quantized",
    ),
    "carried_codes": Case(
        fires=lambda: quantized(pooled(), unit_images()),
        within=0,
        misses=lambda: quantized(pooled(), unit_images(), policy=policy("{op: MaxPool2d, float: true}")),
        at="0",
        reason="its inputs are not integers of one scale",
    ),
    "fake_quantize": Case(
        fires=lambda: quantized(pooled(), unit_images()),
        within=0,
        misses=lambda: quantized(pooled(), unit_images()),
        at="0",
        reason="is MaxPool2d, not FakeQuantize",
    ),
}


def shipped():
    rules = Rules.load()
    every = [*rules.fuse, *(one for target in rules.quantize.values() for one in target), *rules.lower]
    return {one.name: one for one in every}


def test_every_shipped_rule_has_its_two_cases():
    assert sorted(CASES) == sorted(shipped())


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_and_is_asked(name, golden):
    case, rule = CASES[name], shipped()[name]
    assert rule.doc, "the docstring says which block of which model"
    with torch.no_grad():
        gm, said = ask(
            case.fires(),
            applying(rule),
            case.inputs(),
            within=case.within,
            golden=lambda says: golden(f"rule_{name}", says),
        )
    assert said.count(name) >= 1
    sites = [site_of(one) for one in gm.graph.nodes]
    assert len(set(sites)) == len(sites)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_says_why_not(name):
    case, rule = CASES[name], shipped()[name]
    gm = case.misses()
    with pytest.raises(NoMatch) as caught:
        rule.apply(gm, node(gm, case.at))
    assert caught.value.reason == case.reason


def test_what_the_policy_leaves_in_float_keeps_its_silu():
    gm = fused(conv_bn(nn.SiLU()))
    with pytest.raises(NoMatch, match="the policy leaves it in float"):
        shipped()["silu_as_sigmoid_and_mul"].apply(gm, node(gm, "0"))


@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_of_any_kind_moves_codes_and_nothing_else(mode, target):
    """From the trace to the reference graph: the float numbers to the bit, then those of the quantizers alone."""
    block, inputs = conv_bn(nn.SiLU(), padding_mode=mode), unit_images()
    with torch.no_grad():
        wanted = block.eval()(inputs)
        assert torch.equal(fused(block).eval()(inputs), wanted)
        qat = quantized(block, inputs, policy=policy(target=target))
        padded = node(qat, "0_pad")
        assert quant_info(padded).quantizer == quant_info(padded.args[0]).quantizer is not None
        before = qat(inputs)
        int8, _ = converting(Rules.load(), TARGETS[target]).run(qat)
        last = list(QuantGraph(qat).quantizers().values())[-1]
        step = float(last.scale)
        # a tie that one arithmetic rounds up and the other down is one code, and SiLU's slope is below 1.1
        assert (int8(inputs) - before).abs().max() <= 1.1 * step
        assert (before - wanted).abs().max() > 0


def test_lowering_leaves_the_layer_that_it_reads_as_it_was():
    gm = quantized(conv_bn(nn.SiLU()), unit_images(), policy=policy(rest=FLOAT))
    layer = module_of(node(gm, "0"))
    shipped()["float_layer"].apply(gm, node(gm, "0"))
    assert isinstance(layer.activation, nn.SiLU)
    assert torch.equal(layer.with_activation(None).weight, layer.weight)


def test_rules_by_name():
    from fxqat.errors import Problem

    assert Rules.load().named("conv_bn").name == "conv_bn"
    with pytest.raises(
        Problem, match=r"conv_bn_sliu: no such rule; expected one of: .*conv_bn_silu, .*did you mean 'conv_bn_silu'"
    ):
        Rules.load().named("conv_bn_sliu")
