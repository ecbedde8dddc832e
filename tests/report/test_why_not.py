"""Every way in which a rule can pass a site by has its own words, and they name the place."""

from __future__ import annotations

import pytest

from fxqat.cli import main
from fxqat.errors import Problem
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector
from fxqat.passes import Rules
from fxqat.policy import Policy
from fxqat.report.why_not import Answer, pattern_words, why_not


def asked(model: Detector, rule: str, glob: str, policy: str = "w8a8") -> list[Answer]:
    return why_not(model.gm, rule, glob, policy=Policy.load(policy), rules=Rules.load())


@pytest.mark.parametrize(
    ("rule", "site", "words"),
    [
        ("conv_bn_silu", "model.0.conv", "model.0.conv: fired, and put in model.0.conv"),
        ("conv_bn_silu", "model.0.bn", "model.0.bn: fired, and put in model.0.conv"),
        (
            "conv_bn_silu",
            "model.22.cv2.0.2",
            "model.22.cv2.0.2: model.22.cv2.0.2 is Conv2d, as it should be; "
            "then model.22.box_logits.flatten is flatten, not BatchNorm2d",
        ),
        (
            "conv_bn_relu",
            "model.0.conv",
            "model.0.conv: conv_bn_silu (SOURCE) stands before it and had taken this node",
        ),
        (
            "silu_as_sigmoid_and_mul",
            "model.22.cv2.0.2",
            "model.22.cv2.0.2: model.22.cv2.0.2 its activation is not SiLU",
        ),
        ("linear", "model.10", "model.10: model.10 is Upsample, not Linear"),
    ],
)
def test_the_answer_for_a_site(yolov8n: Detector, rule: str, site: str, words: str) -> None:
    found = asked(yolov8n, rule, site)
    assert [str(one).replace(Rules.load().named("conv_bn_silu").source, "SOURCE") for one in found] == [words]


def test_rules_of_lower_are_tried_on_a_calibrated_graph(yolov8n: Detector) -> None:
    found = asked(yolov8n, "integer_layer", "model.22.cv2.0.2", "critical")
    source = Rules.load().named("float_layer").source
    assert str(found[0]) == f"model.22.cv2.0.2: float_layer ({source}) stands before it and had taken this node"
    assert asked(yolov8n, "integer_layer", "model.0.conv", "critical")[0].fired


def test_a_site_without_a_node_means_what_lies_under_it(yolov8n: Detector) -> None:
    found = asked(yolov8n, "conv_bn_silu", "model.4.m.0")
    assert {one.site for one in found} >= {"model.4.m.0.cv1.conv", "model.4.m.0.cv2.act", "model.4.m.0.add"}
    assert all(one.site.startswith("model.4.m.0.") for one in found)


def test_every_site_gets_one_answer_and_the_graph_stays(yolov8n: Detector) -> None:
    before = [site_of(node) for node in yolov8n.gm.graph.nodes]
    found = asked(yolov8n, "conv_bn_silu", "**")
    assert len({one.site for one in found if one.fired}) == 3 * 57
    assert len({one.fired for one in found if one.fired}) == 57
    assert all(bool(one.fired) + (one.taken is not None) + bool(one.reason) == 1 for one in found)
    assert [site_of(node) for node in yolov8n.gm.graph.nodes] == before


@pytest.mark.parametrize(
    ("rule", "site", "words"),
    [
        ("conv_bn_sulu", "**", "did you mean 'conv_bn_silu'?"),
        ("conv_bn_silu", "model.22.cv2.0.22", "covers no site of the graph as the rule meets it; did you mean 'model."),
    ],
)
def test_typos_are_told_the_nearest_name(yolov8n: Detector, rule: str, site: str, words: str) -> None:
    with pytest.raises(Problem) as caught:
        asked(yolov8n, rule, site)
    assert words in str(caught.value)


def test_patterns_read_along_the_data_flow() -> None:
    rules = Rules.load()
    assert pattern_words(rules.named("conv_bn_silu").pattern) == "Conv2d -> BatchNorm2d -> SiLU"
    assert pattern_words(rules.named("conv_alone").pattern) == "Conv2d"


def test_the_command_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-not", "conv_bn_silu", "yolov8n.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("conv_bn_silu (fuse.py:")
    assert lines[0].endswith("looks for Conv2d -> BatchNorm2d -> SiLU")
    assert len([line for line in lines if "not BatchNorm2d" in line]) == 7
    assert lines[-1].startswith("of 253 sites: fired at 57 places, nearly at 7;")
