"""Insertion: one quantizer for all that must share a scale, whatever a policy leaves in float."""

from __future__ import annotations

import operator

import pytest
import torch
from graph.asking import Named, distance, traced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from passes.small import ALL, FLOAT, SPECS, conv_bn, policy, quantized, unit_images
from torch import nn

import fxqat
from fxqat.errors import Problem
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import operation, site_of
from fxqat.passes import Assign, Insert, Rules, converting, fusing, sites
from fxqat.passes.insert import scale_groups
from fxqat.passes.quant_graph import quant_info
from fxqat.policy import Policy
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.targets import ORT_CPU, TARGETS

FLOATS = "  - {role: dfl, float: true}\n  - {role: decode, float: true}\n"


@pytest.fixture(scope="module")
def fused(yolov8n):
    return fusing(Rules.load()).run(yolov8n.gm)[0]


def inserted(gm, read):
    return Pipeline((Assign(policy=read), Insert(target=read.target, rules=Rules.load().quantizing(read.target)))).run(
        gm
    )


def quantizer(node):
    return quant_info(node).quantizer


def tensors_in(node):
    return [one for one in node.all_input_nodes if one.op != "get_attr"]


def check_sharing(gm):
    """The laws of sharing, for any graph and any policy."""
    for node in gm.graph.nodes:
        word = operation(node)
        if quantizer(node) is None:
            continue
        if word in {"cat", "MaxPool2d", "Upsample", "flatten"}:
            assert {quantizer(one) for one in tensors_in(node)} == {quantizer(node)}, site_of(node)
        if node.target is operator.getitem:
            assert quantizer(node.args[0].args[0]) == quantizer(node), site_of(node)
    for node in gm.graph.nodes:
        if operation(node) == "QATConv2d" and len(node.args) == 2:
            source, scale = node.args
            assert scale.target == f"{quantizer(source)}.scale", "the bias has the scale of the input that is there"


def groups_by_quantizer(gm):
    found: dict[str, set[str]] = {}
    for node in gm.graph.nodes:
        if quantizer(node) is not None:
            found.setdefault(quantizer(node), set()).add(site_of(node))
    return list(found.values())


@pytest.mark.parametrize("name", ["w8a8", "critical"])
@pytest.mark.parametrize("architecture", ["yolov8n.yaml", "yolov8n-p2.yaml", "yolov8n-p6.yaml"])
def test_the_shipped_policies_share_where_they_must(name, architecture):
    check_sharing(fxqat.prepare(fxqat.load(architecture, classes=2), name)[0].gm)


def test_boxes_and_scores_share_nothing(prepared):
    for group in groups_by_quantizer(prepared.gm):
        assert not (any(".cv2." in s or "box" in s for s in group) and any(".cv3." in s or "class" in s for s in group))
        assert not any(".decode." in site or ".dfl." in site for site in group)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_sharing_holds_whatever_is_left_in_float(fused, data):
    names = [site.path for site in sites(fused) if not site.roles & {"dfl", "decode"}]
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=12, unique=True))
    lines = "".join(f'  - {{site: "{name}", float: true}}\n' for name in chosen)
    gm, report = inserted(fused, Policy.parse(SPECS + lines + FLOATS + ALL, "drawn.yaml"))
    check_sharing(gm)
    for group in report["insert"].report.figures["groups"]:
        assert not (any(".cv2." in site for site in group) and any(".cv3." in site for site in group))
    with torch.no_grad():
        gm(torch.zeros(1, 3, 32, 32))


def test_groups_of_yolov8n(fused):
    gm, report = inserted(fused, Policy.load("w8a8"))
    groups = report["insert"].report.figures["groups"]
    members = [site for group in groups for site in group]
    assert len(set(members)) == len(members), "a tensor is in one group"
    sppf = next(group for group in groups if "model.9.m" in group)
    assert {"model.9.cv1.conv.silu", "model.9.m", "model.9.m_1", "model.9.m_2", "model.9.cat"} <= set(sppf)
    order = {site_of(node): index for index, node in enumerate(gm.graph.nodes)}
    assert [order[group[0]] for group in groups] == sorted(order[group[0]] for group in groups)


def test_a_residual_add_is_quantized_between_integers(prepared):
    """Its sum joins the Concat at the end of its C2f, so it has that group's scale, not its last addend's."""
    adds = [node for node in prepared.gm.graph.nodes if operation(node) == "add" and ".m." in site_of(node)]
    assert len(adds) == 6
    for node in adds:
        (fake,) = node.users
        assert operation(fake) == "FakeQuantize"
        skipped, added = node.all_input_nodes
        assert None not in {quantizer(skipped), quantizer(added)}
        assert quantizer(node) != quantizer(added)


def test_a_float_input_gets_a_quantizer_for_its_layer_alone():
    gm = quantized(conv_bn(), unit_images(), policy=policy("{op: input, float: true}"))
    assert [site_of(node) for node in gm.graph.nodes] == [
        "input",
        "0.input.quantized",
        "0.input_scale",
        "0",
        "0.quantized",
        "output",
    ]


class Pair(nn.Module):
    """Two convolutions with SiLU, the first of which a policy leaves in float."""

    def __init__(self):
        super().__init__()
        self.first, self.second = conv_bn(nn.SiLU()), conv_bn(nn.SiLU())

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("function", ["silu", "sigmoid"])
def test_what_a_layer_reads_is_not_judged_by_the_function_after_it(target, function):
    """The range before a function is free to cut what the function flattens; an input is not followed by one."""
    spec = f"  a8: {{observer: histogram, method: mse, through: {function}, clip: low}}"
    specs = f"version: 1\ntarget: ort-cpu\nspecs:\n  w8: {{}}\n{spec}\nrules:\n"
    read = Policy.parse(specs + '  - {site: "first.**", float: true}\n' + ALL, "p.yaml", target=target)
    gm = quantized(Pair(), unit_images(), policy=read)
    spec = gm.get_submodule("quantizer.second_0_input").spec
    assert (spec.through, spec.observer, spec.method, spec.clip) == (None, "histogram", "mse", "low")


def test_codes_of_a_float_input_are_the_targets_and_not_the_outputs():
    specs = SPECS.replace("specs:\n", "specs:\n  a4: {bits: 4, symmetric: true, fixed: [0, 6]}\n")
    read = Policy.parse(specs + '  - {site: "first.**", float: true}\n' + ALL.replace("a8", "a4"), "p.yaml")
    spec = quantized(Pair(), unit_images(), policy=read).get_submodule("quantizer.second_0_input").spec
    assert (str(spec), spec.symmetric, spec.fixed) == ("u8<0:255>", False, None)


def test_a_policy_may_give_the_spec_of_an_input():
    specs = SPECS.replace("specs:\n", "specs:\n  in4: {bits: 4, observer: moving_average}\n")
    read = Policy.parse(specs + '  - {site: "first.**", float: true}\n' + ALL.replace("}", ", input: in4}"), "p.yaml")
    gm = quantized(Pair(), unit_images(), policy=read)
    assert gm.get_submodule("quantizer.second_0_input").spec == read.rules[-1].input
    assert str(read.rules[-1].input) == "u4<0:15>"


def test_ranges_known_without_looking():
    gm = quantized(conv_bn(nn.SiLU()), unit_images())
    scale = {name: float(gm.get_submodule(name).scale) for name in ("quantizer.input", "quantizer.0_sigmoid")}
    assert scale == {"quantizer.input": pytest.approx(1 / 255), "quantizer.0_sigmoid": pytest.approx(1 / 255)}


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)


def test_what_a_concat_joins_needs_one_spec():
    specs = SPECS.replace("specs:\n", "specs:\n  a4: {bits: 4, signed: false, symmetric: false}\n")
    read = Policy.parse(specs + '  - {site: "b", weight: w8, activation: a4}\n' + ALL, "two.yaml")
    with pytest.raises(Problem) as caught:
        quantized(Joined(), unit_images(), policy=read)
    assert str(caught.value) == (
        "b: is u4<0:15>, but shares its scale with a, which is u8<0:255>; "
        "expected one spec for all that a Concat joins; give both sites one rule in the policy"
    )


def test_a_concat_observes_all_that_it_joins():
    gm = quantized(Joined(), unit_images())
    fakes = [node for node in gm.graph.nodes if operation(node) == "FakeQuantize"]
    assert [site_of(node) for node in fakes] == ["x.quantized", "a.quantized", "b.quantized"]
    assert fakes[1].target == fakes[2].target != fakes[0].target
    assert isinstance(gm.get_submodule(str(fakes[1].target)), FakeQuantize)
    with torch.no_grad():
        whole = torch.cat(
            [
                gm.a(gm.get_submodule("quantizer.x")(unit_images()), torch.tensor([1 / 255.0])),
                gm.b(unit_images(), torch.tensor([1 / 255.0])),
            ],
            1,
        )
    shared = gm.get_submodule(str(fakes[1].target))
    low, high = min(0.0, float(whole.min())), max(0.0, float(whole.max()))
    # The range that was seen, of values not yet quantized: within two steps of what the integer layers give.
    assert float(shared.scale) * 255 == pytest.approx(high - low, abs=2 * float(shared.scale))


def test_an_operation_outside_the_vocabulary_stops_with_its_site():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.erf(x)

    with pytest.raises(Problem) as caught:
        quantized(Odd(), unit_images())
    assert str(caught.value).startswith(
        "erf: the operation erf is outside the vocabulary of target ort-cpu; expected one of: input, QATConv2d"
    )
    assert str(caught.value).endswith("rewrite it with a rule (--patterns)")


def test_a_batch_norm_by_itself_runs_in_float_between_integers():
    net = nn.Sequential(nn.BatchNorm2d(4), conv_bn(nn.ReLU()))
    gm = quantized(net, unit_images())
    assert quantizer(next(node for node in gm.graph.nodes if operation(node) == "QATBatchNorm2d")) is None
    lowered, _ = converting(Rules.load(), ORT_CPU).run(gm)
    assert not any(isinstance(one, nn.BatchNorm2d) for one in lowered.modules())
    with torch.no_grad():
        # a value beside a rounding tie of the next quantizer may land one step away, none does here
        assert torch.equal(gm(unit_images()), lowered(unit_images()))


def test_an_activation_that_the_target_does_not_know_is_refused_when_preparing():
    """Inside a fused layer no policy sees it, and lowering would be the first to meet it."""

    def held(gm):
        gm.get_submodule("0").activation = nn.Tanh()

    fused, rest = fusing(Rules.load(), (Named("held", held),)).passes, Insert(target=ORT_CPU, rules=())
    with pytest.raises(Problem, match=r"^pass insert at 0: its activation is Tanh .*the stage QAT for ort-cpu: "):
        Pipeline((*fused, Assign(policy=policy()), rest)).run(traced(conv_bn()))


def test_lowering_takes_a_prepared_graph_and_no_other():
    with pytest.raises(Problem, match=r"^before the pass lower at 0: is Conv2d .*the stage QAT for ort-cpu: nothing"):
        converting(Rules.load(), ORT_CPU).run(traced(conv_bn()))


@pytest.mark.parametrize("rest", [ALL, FLOAT])
def test_a_linear_layer_is_lowered_in_integers_and_in_float(rest):
    gm = quantized(nn.Sequential(nn.Conv2d(4, 2, 8), nn.Linear(1, 3)), unit_images(), policy=policy(rest=rest))
    with torch.no_grad():
        # float sums of 256 products of size 1 in another order
        assert distance(gm(unit_images()), converting(Rules.load(), ORT_CPU).run(gm)[0](unit_images())) <= 256 * 2**-23


def test_groups_need_no_quantizer_yet(fused):
    gm, _ = Pipeline((Assign(policy=Policy.load("critical")),)).run(fused)
    groups = scale_groups(gm, Policy.load("critical").target)
    assert [site_of(node) for node in groups[0]] == ["images"]


def test_layers_that_read_the_same_floats_share_a_quantizer(fused):
    text = Policy.load("w8a8").text.replace("rules:", 'rules:\n  - {site: "model.15.cv2.conv", float: true}', 1)
    gm, _ = inserted(fused, Policy.parse(text, "mine.yaml"))
    (source,) = [node for node in gm.graph.nodes if site_of(node) == "model.15.cv2.conv"]
    # an exporter would merge two that are the same, and lose the second's site
    (fake,) = [user for user in source.users if operation(user) == "FakeQuantize"]
    readers = {site_of(user) for user in fake.users}
    assert readers == {"model.16.conv", "model.22.cv2.0.0.conv", "model.22.cv3.0.0.conv"}
