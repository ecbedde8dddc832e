"""Where each target has its quantizers, on YOLOv8n: the layouts that its runtime folds."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

import fxqat
from fxqat.errors import Problem
from fxqat.graph.info import info_of
from fxqat.graph.site import module_of, operation, site_of
from fxqat.models.detector import cut
from fxqat.passes import Rules, fusing
from fxqat.passes.quant_graph import quant_info
from fxqat.policy import Policy
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.targets import TARGETS

FOLDING = ("openvino", "tensorrt")
INTEGER = {"float": 0, "critical": 57, "w8a8": 63}


@pytest.fixture(scope="module")
def made(yolov8n):
    found = {}

    def one(target, policy="critical"):
        if (target, policy) not in found:
            found[target, policy] = fxqat.prepare(yolov8n, policy, target=target)[0].gm
        return found[target, policy]

    return one


def convolutions(gm):
    return [node for node in gm.graph.nodes if operation(node) == "QATConv2d"]


def is_decode(node):
    return "decode" in info_of(node).roles


def quantized(node):
    return quant_info(node).quantizer is not None


@pytest.mark.parametrize(("target", "policy"), list(product(TARGETS, INTEGER)))
def test_every_shipped_policy_is_for_every_target(made, target, policy):
    gm = made(target, policy)
    integer = [node for node in convolutions(gm) if module_of(node).weight_fake_quant is not None]
    assert len(integer) == INTEGER[policy]
    assert all(quantized(node.args[0]) for node in integer)
    forms = {str(module_of(node).weight_fake_quant.spec) for node in integer}
    assert forms <= {str(TARGETS[target].weight)}
    fakes = [m for name, m in gm.named_modules() if name.startswith("quantizer.") and isinstance(m, FakeQuantize)]
    assert {(fake.spec.signed, fake.spec.symmetric, fake.spec.bits) for fake in fakes} <= {
        (t.signed, t.symmetric, t.bits) for t in [TARGETS[target].activation]
    }


@pytest.mark.parametrize("target", FOLDING)
def test_only_what_a_convolution_reads_is_rounded(made, target):
    gm = made(target, "w8a8")
    for fake in (node for node in gm.graph.nodes if operation(node) == "FakeQuantize"):
        assert reaches_a_convolution(fake), site_of(fake)
    assert not any(node.target is torch.sigmoid and not is_decode(node) for node in gm.graph.nodes)
    assert sum(isinstance(module_of(node).activation, nn.SiLU) for node in convolutions(gm)) == 57


def reaches_a_convolution(node):
    moves = {"cat", "MaxPool2d", "Upsample", "chunk", "getitem", "FakeQuantize"}
    return any(
        operation(user) == "QATConv2d" or (operation(user) in moves and reaches_a_convolution(user))
        for user in node.users
    )


@pytest.mark.parametrize("target", FOLDING)
def test_a_sum_reads_codes_beside_it_and_its_convolution_as_it_is(made, target):
    adds = [node for node in made(target).graph.nodes if operation(node) == "add" and ".m." in site_of(node)]
    assert len(adds) == 6
    for node in adds:
        skipped, added = node.args
        assert quantized(skipped)
        assert operation(added) == "QATConv2d", "its convolution, SiLU and the sum are one kernel"
        assert not quantized(added)


@pytest.mark.parametrize("target", FOLDING)
def test_biases_stay_in_float(made, target):
    gm = made(target)
    assert {len(node.args) for node in convolutions(gm)} == {1}
    assert not any(node.op == "get_attr" and str(node.target).startswith("quantizer.") for node in gm.graph.nodes)


def test_tensorrt_has_no_zero_points(yolov8n, images):
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8", target="tensorrt")[0], [images])
    fakes = [m for name, m in qat.gm.named_modules() if name.startswith("quantizer.") and isinstance(m, FakeQuantize)]
    assert {int(fake.zero_point) for fake in fakes} == {0}
    with torch.no_grad():
        trained = qat(images)[0]
        lowered = IntegerExecution(cut(fxqat.convert(qat)[0].gm, 0)).run(images)
    # The same floats in the same order; the DFL alone is written differently, see tests/passes/test_spine.py.
    assert (trained[:, 4:] - lowered[:, 4:]).abs().max() == 0
    assert (trained[:, :4] - lowered[:, :4]).abs().max() <= 32 * 2 * 16 * 15 * 2**-23


def test_the_layouts_of_onnx_runtime_are_one(made):
    names = {target: list(dict(made(target).named_parameters())) for target in ("ort-cpu", "ort-cpu-vnni", "ort-arm")}
    assert len({tuple(one) for one in names.values()}) == 1
    layers = {target: [module_of(node) for node in convolutions(made(target))] for target in names}
    orders = {target: {one.pair_orders for one in layers[target] if one.weight_fake_quant} for target in names}
    assert orders == {target: {TARGETS[target].pair_orders} for target in names}


def test_a_policy_that_the_target_cannot_run(yolov8n):
    text = Policy.load("w8a8").text.replace("weights: {observer", "weights: {symmetric: false, observer")
    line = 1 + text[: text.index("role: backbone")].count("\n")
    with pytest.raises(Problem) as caught:
        fxqat.prepare(yolov8n, Policy.parse(text, "mine.yaml", target="ort-cpu-vnni"))
    assert str(caught.value) == (
        f"mine.yaml:{line}: model.0.conv: ort-cpu-vnni cannot run the weight spec i8<-127:127>:axis0 asymmetric "
        "(a weight's zero point costs a sum over the input in every kernel); expected "
        "i8<-127:127>:axis0 symmetric; leave symmetric out of the spec and it is ort-cpu-vnni's own"
    )


def test_a_target_that_was_replaced(yolov8n):
    words = "the target ort-cpu-avx2 is no more; expected one of: ort-cpu, .*; write ort-cpu$"
    with pytest.raises(Problem, match=f"^--target: {words}"):
        fxqat.prepare(yolov8n, "w8a8", target="ort-cpu-avx2")
    text = Policy.load("w8a8").text.replace("target: ort-cpu ", "target: ort-cpu-avx2 ")
    with pytest.raises(Problem, match=f"^mine.yaml:3: {words}"):
        Policy.parse(text, "mine.yaml")
    assert Policy.parse(text, "mine.yaml", recorded=True).target.weight.bits == 7


def test_a_target_that_is_none(yolov8n):
    with pytest.raises(Problem, match=r"--target: unknown target 'openvin'; expected one of: ort-cpu, .*did you mean"):
        fxqat.prepare(yolov8n, "w8a8", target="openvin")


def test_a_read_from_afar_still_counts(yolov8n):
    """What only moves values hands the wish for integers on, through a Concat and an Upsample."""
    gm = fusing(Rules.load()).run(yolov8n.gm)[0]
    cats = [site_of(node) for node in gm.graph.nodes if node.target is torch.cat and not is_decode(node)]
    qat = fxqat.prepare(yolov8n, "critical", target="openvino")[0].gm
    by_site = {site_of(node): node for node in qat.graph.nodes}
    integer = [site for site in cats if quantized(by_site[site])]
    assert len(integer) == 13, "8 of C2f, 1 of SPPF, 4 of the neck"
    for site in integer:
        assert {quant_info(one).quantizer for one in by_site[site].args[0]} == {quant_info(by_site[site]).quantizer}
