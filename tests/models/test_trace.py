"""Tracing: every scale bit for bit, sites that stay, roles that a policy can rely on, no decode in a training step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Detect

import fxqat
from fxqat.errors import Problem
from fxqat.graph.info import info_of
from fxqat.graph.site import module_of, operation, site_of
from fxqat.models.detector import cut
from fxqat.models.families import adapt
from fxqat.models.load import build
from fxqat.models.trace import trace

SLOW = [pytest.param(f"yolov8{scale}.yaml", marks=pytest.mark.slow) for scale in ("l", "x", "x-p6")]
ARCHITECTURES = ["yolov8n.yaml", "yolov8s.yaml", "yolov8m.yaml", "yolov8n-p2.yaml", "yolov8n-p6.yaml", *SLOW]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(same(one, other) for one, other in zip(a, b, strict=True))


def sites(gm):
    return [site_of(node) for node in gm.graph.nodes]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_scale_traces_and_computes_the_same_bits(name):
    model, _ = build(name, classes=3)
    gm, inputs = trace(model), torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert same(gm(inputs), model(inputs))
    assert len(set(sites(gm))) == len(sites(gm))
    assert [node for node in gm.graph.nodes if node.op == "call_module" and isinstance(module_of(node), Detect)] == []


@pytest.mark.parametrize("classes", [1, 10, 80])
def test_any_number_of_classes(classes, images):
    with torch.no_grad():
        predictions, _ = fxqat.load("yolov8n.yaml", classes=classes)(images)
    assert predictions.shape == (4, 4 + classes, 84)


def test_the_graph_takes_any_size_and_batch(yolov8n):
    model, _ = build("yolov8n.yaml")
    gm = trace(model)
    for shape in ((1, 3, 32, 32), (3, 3, 96, 160)):
        with torch.no_grad():
            assert same(gm(torch.ones(shape)), model(torch.ones(shape)))


def test_yolov8n_has_57_silu_sites_and_64_convolutions(yolov8n):
    count = [operation(node) for node in yolov8n.gm.graph.nodes]
    assert (count.count("SiLU"), count.count("BatchNorm2d"), count.count("Conv2d")) == (57, 57, 64)
    silus = [node for node in yolov8n.gm.graph.nodes if operation(node) == "SiLU"]
    assert len({node.target for node in silus}) == len({id(module_of(node)) for node in silus}) == 57


def test_the_source_model_is_left_alone_and_shares_nothing():
    model, _ = build("yolov8n.yaml")
    state = copy.deepcopy(model.state_dict())
    gm = trace(model)
    with torch.no_grad():
        for parameter in gm.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in state.items())
    assert type(model.model[-1]) is Detect


def test_the_decode_has_sites_of_its_own(yolov8n):
    inside = [site.removeprefix("model.22.") for site in sites(yolov8n.gm) if site.startswith("model.22.")]
    assert [site for site in inside if site.startswith("dfl.")] == [
        "dfl.unflatten",
        "dfl.transpose",
        "dfl.softmax",
        "dfl.conv",
        "dfl.squeeze",
    ]
    assert {"scores.sigmoid", "decode.points", "decode.strides", "box_logits.cat", "class_logits.cat", "cat"} <= set(
        inside
    )


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov8s.yaml", "yolov8n-p2.yaml", "yolov8n-p6.yaml"])
def test_roles_survive_a_change_of_scale_and_head(name):
    gm = fxqat.load(name, classes=10).gm
    by_role: dict[str, list[str]] = {}
    for node in gm.graph.nodes:
        for role in info_of(node).roles:
            by_role.setdefault(role, []).append(site_of(node))
    levels = {"yolov8n-p2.yaml": 4, "yolov8n-p6.yaml": 4}.get(name, 3)
    heads = {"head", "detect", "detect_out", "box_out", "class_out", "dfl", "decode"}
    assert set(by_role) == {"first_conv", "backbone", "neck", *heads}
    assert sorted(by_role["detect_out"]) == sorted(by_role["box_out"] + by_role["class_out"])
    assert by_role["first_conv"] == ["model.0.conv"]
    last = {"yolov8n-p6.yaml": 11}.get(name, 9)  # the pooling layer, SPPF
    pools = [node for node in gm.graph.nodes if operation(node) == "MaxPool2d"]
    assert {site_of(node).rsplit(".", 1)[0] for node in pools} == {f"model.{last}"}
    assert {int(site.split(".")[1]) for site in by_role["backbone"]} == set(range(last + 1))
    outputs = [
        node for node in gm.graph.nodes if site_of(node) in by_role["detect_out"] and operation(node) == "Conv2d"
    ]
    assert len(outputs) == 2 * levels
    assert {module_of(node).out_channels for node in outputs} == {64, 10}
    assert len(by_role["dfl"]) == 5


def test_training_computes_no_decode(yolov8n, images):
    raw = cut(yolov8n.gm, 1)
    assert [site for site in sites(raw) if ".dfl." in site or ".decode." in site or ".scores." in site] == []
    # The whole graph less the 5 operations of the DFL, 12 of the box decode, the sigmoid and the last Concat.
    assert len(raw.graph.nodes) == len(yolov8n.gm.graph.nodes) - 5 - 12 - 1 - 1
    model = copy.deepcopy(yolov8n).train()
    assert set(model(images)) == {"boxes", "scores", "feats"}


def test_training_gives_what_the_source_model_gives(images):
    model, _ = build("yolov8n.yaml")
    detector = fxqat.load("yolov8n.yaml").train()
    wanted, got = model.train()(images), detector(images)
    assert same({key: got[key] for key in wanted}, wanted)
    wanted["boxes"].sum().backward()
    got["boxes"].sum().backward()
    first, mine = dict(model.named_parameters())["model.0.conv.weight"], dict(detector.gm.named_parameters())
    assert torch.equal(mine["model.0.conv.weight"].grad, first.grad)


def test_a_copy_is_independent(yolov8n, images):
    other = copy.deepcopy(yolov8n)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        assert not same(other(images), yolov8n(images))


class Strange(nn.Module):
    pass


def test_a_head_without_an_adapter():
    with pytest.raises(Problem) as caught:
        adapt(Strange(), "m.pt")
    assert str(caught.value).startswith("m.pt: its head is Strange; expected one of: Detect, v10Detect")
