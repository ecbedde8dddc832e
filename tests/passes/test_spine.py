"""The spine on YOLOv8n: the text of every stage, what fusing counts, and that it changes no number."""

from __future__ import annotations

import copy

import pytest
import torch
from graph.asking import distance, masked, noise, traced
from torch import nn

import fxqat
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import module_of, operation, site_of
from fxqat.graph.text import text
from fxqat.passes import Canonicalize, Rules, fusing, sites
from fxqat.policy import Policy
from fxqat.policy.resources import shipped
from fxqat.quant.modules import QATConv2d

PARTS = {
    "n": ("yolov8n.yaml", None),
    "s10": ("yolov8s.yaml", 10),
    "p2": ("yolov8n-p2.yaml", 3),
    "p6": ("yolov8n-p6.yaml", 3),
}


@pytest.fixture(scope="module")
def fused(yolov8n):
    return fusing(Rules.load()).run(yolov8n.gm)


def test_the_text_of_every_stage(yolov8n, fused, golden):
    stages = {"traced": text(yolov8n.gm.graph), "fused": text(fused[0].graph)}
    for policy in ("critical", "w8a8"):
        stages[policy] = masked(text(fxqat.prepare(yolov8n, policy)[0].gm.graph))
    for stage, says in stages.items():
        assert says == golden(f"yolov8n_{stage}", says)


def test_the_text_of_the_integer_graph(converted, golden):
    says = masked(text(converted.gm.graph))
    assert says == golden("yolov8n_int8", says)


def test_57_fusions_of_conv_bn_silu_and_7_convolutions_alone(fused):
    rewrites = fused[1]["fuse"].report.rewrites
    assert (rewrites.count("conv_bn_silu"), rewrites.count("conv_alone")) == (57, 7)
    assert len(rewrites.applied) == 64
    assert fused[1]["fuse"].report.says == "57 conv_bn_silu, 7 conv_alone"
    assert {one.site for one in rewrites.applied} == {
        site_of(n) for n in fused[0].graph.nodes if operation(n) == "QATConv2d"
    }


def test_fusing_changes_no_output(yolov8n, fused, images):
    # Without a weight quantizer a fused module runs its three layers one after the other: not 1e-5 but 0.
    with torch.no_grad():
        assert distance(yolov8n.gm(images), fused[0](images)) == 0


def test_fusing_again_changes_nothing(fused):
    again, report = fusing(Rules.load()).run(fused[0])
    assert text(again.graph) == text(fused[0].graph)
    assert report["fuse"].report.rewrites.applied == ()


def test_nothing_is_kept_twice(yolov8n, fused):
    count = sum(parameter.numel() for parameter in yolov8n.gm.parameters())
    assert sum(parameter.numel() for parameter in fused[0].parameters()) == count
    assert not any(
        type(m) is nn.BatchNorm2d
        for name, m in fused[0].named_modules()
        if name.endswith((".bn", "bn_1")) and "conv" not in name
    )


def test_canonicalize_gives_each_call_its_module(yolov8n):
    gm, report = Pipeline((Canonicalize(),)).run(yolov8n.gm)
    calls = [node for node in gm.graph.nodes if node.op == "call_module"]
    assert all(node.target == site_of(node) for node in calls)
    assert len({id(module_of(node)) for node in calls}) == len(calls)
    assert (
        report["canonicalize"].report.says == "2 calls of shared modules parted"
    )  # SPPF calls its MaxPool2d three times


class Branches(nn.Module):
    """A block whose third branch is a 0, as RepConv's, and may be something."""

    def __init__(self, rest):
        super().__init__()
        self.a, self.b, self.rest = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), rest

    def forward(self, x):
        return self.a(x) + self.b(x) + self.rest


def test_canonicalize_drops_a_branch_that_is_nothing():
    x = noise(1, 4, 6, 6)
    for rest, left in ((0, ["add"]), (0.0, ["add"]), (1, ["add", "add_1"])):
        source = traced(Branches(rest))
        gm, _ = Pipeline((Canonicalize(),)).run(source)
        assert [site_of(node) for node in gm.graph.nodes if operation(node) == "add"] == left
        assert torch.equal(gm(x), source(x))


def test_a_rep_conv_is_one_convolution():
    from ultralytics.nn.modules import RepConv

    gm = fusing(Rules.load()).run(traced(RepConv(4, 4).eval()))[0]
    layers = [node for node in gm.graph.nodes if node.op == "call_module"]
    assert [type(module_of(node)) for node in layers] == [QATConv2d]


def test_a_relu_model_fuses_too(images):
    from fxqat.models.load import build
    from fxqat.models.trace import trace

    _, source = build("yolov8n.yaml")
    model, _ = build({**source.architecture, "activation": "nn.ReLU()"})
    gm = trace(model)
    fused, report = fusing(Rules.load()).run(gm)
    assert report["fuse"].report.says == "57 conv_bn_relu, 7 conv_alone"
    with torch.no_grad():
        assert distance(gm(images), fused(images)) == 0


def test_fused_convolutions_know_their_layers(fused):
    convolutions = [m for m in fused[0].modules() if isinstance(m, QATConv2d)]
    assert sum(isinstance(m.activation, nn.SiLU) for m in convolutions) == 57
    assert sum(m.bn is not None for m in convolutions) == 57
    assert {m.bn.eps for m in convolutions if m.bn is not None} == {1e-3}, "constants come from the model"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("policy", shipped("policies"))
def test_every_shipped_policy_decides_every_site_and_uses_every_rule(policy, part, models):
    found = sites(models(part))
    read = Policy.load(policy)
    decisions = read.assign(found)
    assert list(decisions) == [site.path for site in found]
    used = {decision.rule.where for decision in decisions.values()}
    assert used >= {rule.where for rule in read.rules if not rule.optional}
    assert read.doc


@pytest.fixture(scope="module")
def models():
    made = {}

    def fused_part(part):
        if part not in made:
            name, classes = PARTS[part]
            made[part] = fusing(Rules.load()).run(fxqat.load(name, classes=classes).gm)[0]
        return made[part]

    return fused_part


def test_preparing_leaves_the_model_as_it_was_and_computes_the_same(yolov8n, prepared, images):
    before = copy.deepcopy(yolov8n.gm.state_dict())
    qat, _ = fxqat.prepare(yolov8n, "critical")
    assert (yolov8n.stage, qat.stage) == ("float", "qat")
    assert all(torch.equal(tensor, before[name]) for name, tensor in yolov8n.gm.state_dict().items())


def test_converting_equals_the_fake_quantized_graph(calibrated, converted, images):
    with torch.no_grad():
        trained, reference = calibrated(images)[0], converted(images)[0]
    # The decode in float is written differently: the DFL sums 16 products of at most 15 in another order, 16 roundings
    # of 15, times 32 pixels a cell; scores are the same sigmoid of the same codes.
    boxes = (trained[:, :4] - reference[:, :4]).abs() > 32 * 2 * 16 * 15 * 2**-23
    scores = trained[:, 4:] != reference[:, 4:]
    # Float arithmetic errs by up to 2**-20 of a code in a sum of 576 products, so one value in 10**6 is rounded the
    # other way; up to a hundred roundings feed a logit: one in 10**4, ten times as many where a machine sums in another
    # order. A box's corner reads 32 logits, ten of which weigh. A wrong scale or zero point moves nearly all.
    assert float(boxes.float().mean()) <= 1e-2
    assert float(scores.float().mean()) <= 1e-3


def test_the_integer_graph_holds_integers(converted):
    state = converted.gm.state_dict()
    weights = [tensor for name, tensor in state.items() if name.endswith(".weight") and name.startswith("integer.")]
    biases = [tensor for name, tensor in state.items() if name.endswith(".bias") and name.startswith("integer.")]
    assert {tensor.dtype for tensor in weights} == {torch.int8}
    assert {tensor.dtype for tensor in biases} == {torch.int32}
    assert (len(weights), len(biases)) == (63, 63)
    assert [name for name, _ in converted.gm.named_parameters()] == []
