"""The search's parts: layouts against the graphs that a policy really gives, choices against plain arithmetic, and the
policy as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fxqat
from fxqat.errors import Problem
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.passes import Assign, Rules, fusing, preparing
from fxqat.passes.quant_graph import quant_info
from fxqat.passes.selective import has_integer_weight, members
from fxqat.policy import Policy
from fxqat.search.candidates import EQUAL, Candidate, candidates, pick
from fxqat.search.layer_selection import Judge
from fxqat.search.mixed_precision import Layout
from fxqat.search.op_costs import Costs
from fxqat.search.policy_writer import written
from fxqat.search.search import search
from fxqat.search.search_result import Budget

BASE = Policy.load("w8a8")


@pytest.fixture(scope="module")
def layout(yolov8n: Detector, prepared: Detector) -> Layout:
    fused, _ = Pipeline((*fusing(Rules.load()).passes, Assign(policy=BASE))).run(yolov8n.gm)
    return Layout(fused, prepared.gm, BASE.target, ImageSize.of(640))


def policy(layout: Layout, left: Sequence[str], why: Callable[[Sequence[str]], str] = " ".join) -> str:
    follow = layout.follow(left)
    kept = {site for site, node in layout.nodes.items() if site not in follow and node.quantized}
    return written(BASE, "a test's", follow, kept, why, layout.sites)


def flat(layout: Layout, milliseconds: float, border: float = 0.0) -> Costs:
    return Costs(sites=dict.fromkeys(layout.layers, milliseconds), elements={}, border=border, total=0.0)


def judge(layout: Layout, int8: Costs, plain: Costs, noisy: dict[str, float]) -> Judge:
    """Every quantizer of a site in ``noisy`` adds that much, independently."""
    names = list(layout.members)
    return Judge(layout, int8, plain, np.diag([noisy.get(layout.members[name][0], 0.0) for name in names]), names)


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_layout_is_the_graph_that_its_policy_gives(layout, yolov8n, data):
    left = data.draw(st.sets(st.sampled_from(layout.layers), max_size=12))
    start = data.draw(st.integers(0, 8))
    left |= set(layout.layers[:start])
    found = Policy.parse(policy(layout, sorted(left)), "found.yaml")
    gm, _ = preparing(found, Rules.load()).run(yolov8n.gm)
    integers = layout.integers(left)
    layers = {site_of(node) for node in gm.graph.nodes if has_integer_weight(node)}
    assert layers == {site for site in layout.layers if integers[site]}
    quantized = {site_of(node) for node in gm.graph.nodes if quant_info(node).quantizer is not None}
    for site, node in layout.nodes.items():
        if not node.layer and node.sources and not site.endswith("chunk"):  # a tuple is no tensor
            assert integers[site] == (site in quantized or f"{site}.quantized" in quantized), site
    borders = {site_of(node).removesuffix(".input.quantized") for node in gm.graph.nodes if ".input.q" in site_of(node)}
    floats = [(site, layout.nodes[site].sources[0]) for site in layout.layers if site in layers]
    floats = [(site, source) for site, source in floats if not integers[source]]
    firsts = {source: site for site, source in reversed(floats)}  # one quantizer for all that read the same tensor
    assert borders == set(firsts.values())


def test_with_nothing_left_out_all_quantizers_are_awake(layout, prepared):
    assert layout.awake(()) == [node.name for node in members(prepared.gm)]
    assert layout.awake(layout.layers) == []
    assert layout.follow(()) == []
    assert layout.follow(layout.layers)[0] == "images"


def test_a_quantizer_stays_where_an_integer_layer_reads_a_float_tensor(layout):
    awake = layout.awake(["model.0.conv"])
    assert not [name for name in awake if name.startswith("quantizer_images")]
    of_stem = [name for name in awake if layout.members[name][0] == "model.0.conv"]
    assert of_stem == ["quantizer_model_0_conv_silu"]  # model.1.conv reads it
    assert not [name for name in layout.awake(["model.0.conv", "model.1.conv"]) if "model_0_conv" in name]


def test_cost_counts_layers_and_borders(layout):
    int8, plain = flat(layout, 1.0), flat(layout, 3.0)
    count = len(layout.layers)
    assert layout.cost((), int8, plain) == pytest.approx(count)
    assert layout.cost(layout.layers[:2], int8, plain) == pytest.approx(count + 4)
    bordered = flat(layout, 1.0, border=1e-6)
    inside = layout.cost((), bordered, plain)
    stem = layout.cost(["model.0.conv"], bordered, plain)
    images, first = 3 * 640 * 640, 16 * 320 * 320
    # the images are no longer quantized, the first layer's output is
    assert stem - inside == pytest.approx(2 + (first - images) * 1e-6)


def test_what_saves_time_is_left_in_float_whatever_the_budget(layout):
    int8, plain = flat(layout, 1.0), flat(layout, 2.0)
    plain.sites["model.3.conv"] = 0.5
    left, steps = judge(layout, int8, plain, {"model.3.conv": 1.0}).choose(allowed=1e9)
    assert left == ("model.3.conv",)
    assert [(step.layers, step.milliseconds) for step in steps] == [(("model.3.conv",), pytest.approx(-0.5))]


def test_the_budget_is_met_by_what_helps_most_for_its_time(layout):
    int8, plain = flat(layout, 1.0), flat(layout, 2.0)
    plain.sites["model.5.conv"] = 5.0
    noisy = {"model.3.conv": 1.0, "model.5.conv": 1.5, "model.7.conv": 0.1}
    found = judge(layout, int8, plain, noisy)
    whole = found.harm(())
    assert found.choose(allowed=whole)[0] == ()
    left, _ = found.choose(allowed=0.75 * whole)
    assert left == ("model.3.conv",)  # model.5.conv would save more, but for four times the time
    left, _ = found.choose(allowed=0.3 * whole)
    assert set(left) == {"model.3.conv", "model.5.conv"}
    assert found.harm(left) <= 0.3 * whole


def test_a_budget_that_cannot_be_met_ends(layout):
    found = judge(layout, flat(layout, 1.0), flat(layout, 2.0), {"model.3.conv": 1.0})
    left, _ = found.choose(allowed=-1.0)
    assert found.harm(left) == 0.0


def test_a_layer_of_every_branch_may_be_chosen_as_one(layout):
    boxes = tuple(site for site in layout.layers if site.startswith("model.22.cv2") and site.endswith(".2"))
    assert len(boxes) == 3
    assert boxes in judge(layout, flat(layout, 1.0), flat(layout, 2.0), {}).moves()


def test_the_front_goes_from_the_base_to_less_error_for_more_time(layout):
    noisy = {site: float(index % 5) for index, site in enumerate(layout.layers)}
    found = candidates(judge(layout, flat(layout, 1.0), flat(layout, 2.0), noisy), 6)
    assert found[0].left == ()
    assert len({one.left for one in found}) == len(found) > 3
    assert all(a.divergence > b.divergence and a.predicted < b.predicted for a, b in pairwise(found))


@given(
    rows=st.lists(st.tuples(st.floats(0.01, 0.1), st.floats(20, 40)), min_size=1, max_size=6),
    allowed=st.floats(0.005, 0.12),
)
def test_the_pick_is_fast_and_nothing_as_fast_disagrees_less(rows, allowed):
    plain = Candidate(left=(), steps=(), predicted=0.0, divergence=0.0)
    front = [plain.measured(*row) for row in rows]
    chosen = pick(front, allowed)
    legal = [one for one in front if one.disagreement <= allowed]
    if not legal:
        assert chosen.disagreement == min(one.disagreement for one in front)
        return
    assert chosen in legal
    fastest = min(one.milliseconds for one in legal)
    assert chosen.milliseconds <= fastest * (1 + EQUAL)
    assert not [one for one in legal if one.milliseconds <= fastest and one.disagreement < chosen.disagreement]


def test_the_policy_says_why_on_each_line_and_changes_nothing_else(layout):
    left = ("model.0.conv", "model.3.conv", "model.22.cv3.0.2")
    noisy = {"model.3.conv": 1.0, "model.5.conv": 3.0}
    found = judge(layout, flat(layout, 1.0), flat(layout, 2.0), noisy)
    text = policy(layout, left, lambda part: found.why(left, part))
    rules = yaml.safe_load(text)["rules"]
    assert all(rule["why"] for rule in rules)
    time = 100 / len(layout.layers)
    assert rules[:3] == [
        {"site": "images", "float": True, "why": "read by float layers alone"},
        {
            "site": "model.0.**",
            "float": True,
            "why": f"INT8 here would add no error and save {time:.1f} % of the time",
        },
        {
            "site": "model.3.**",
            "float": True,
            # model.3.conv has four quantizers, and that of its output stays where integer layers read it
            "why": f"INT8 here would add {100 * 3 / 16:.1f} % of the output's error and save {time:.1f} % of the time",
        },
    ]
    decided = Policy.parse(text, "found.yaml").assign(layout.sites)
    before = BASE.assign(layout.sites)
    follow = set(layout.follow(left))
    assert follow <= {site for site, decision in decided.items() if decision.qconfig.is_float}
    same = [site for site in decided if site not in follow]
    assert [decided[site].qconfig for site in same] == [before[site].qconfig for site in same]


def test_rules_of_the_base_that_no_site_is_left_for_are_dropped(layout):
    outputs = [site for site in layout.layers if site.startswith("model.22.cv") and site.endswith(".2")]
    text = policy(layout, outputs)
    Policy.parse(text, "found.yaml").assign(layout.sites)  # would refuse a rule that decides nothing
    assert "box_out" not in text


def test_refusals(tmp_path, calibrated):
    with pytest.raises(Problem, match=r"--max-drop: -1; expected points of mAP50-95, 0 or more"):
        Budget(max_drop=-1)
    path = fxqat.save(calibrated, tmp_path / "x.fxqat")
    with pytest.raises(Problem, match=r"is at stage qat; expected a \.pt, which has no policy yet"):
        search(path, "x.yaml")
