"""Ultralytics' zoo: every architecture traces and computes the same bits; others are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from refusals import refusal
from torch import Tensor, nn

import fxqat
from fxqat.graph.site import site_of
from fxqat.models.families import REFUSED
from fxqat.models.families.towers import Selection
from fxqat.models.load import build
from fxqat.models.trace import trace

DETECTION = (
    *("yolov3-tiny", "yolov5n", "yolov5n-p6", "yolov6n", "yolov8n-ghost", "yolov8n-ghost-p2", "yolov9t", "yolov9s"),
    *("yolov10n", "yolov10s", "yolo11n", "yolo11s", "yolo12n", "yolo26n", "yolo26n-p2"),
)
LARGE = (
    *("yolov3u", "yolov3-spp", "yolov9m", "yolov9c", "yolov9e", "yolov10m", "yolo11m", "yolo12m", "yolo12l"),
    "yolov9c-seg",
)
TASKS = tuple(f"{model}n-{task}" for model in ("yolov8", "yolo11", "yolo26") for task in ("seg", "pose", "obb", "cls"))
ZOO = [*DETECTION, *TASKS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


def living(name: str, images: Tensor) -> nn.Module:
    """A model of Ultralytics' whose batch norms know the statistics of ``images``."""
    model, _ = build(f"{name}.yaml")
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def differing(mine: Any, theirs: Any, where: str = "") -> list[str]:
    """Where ``theirs`` is not found in ``mine``, bit for bit."""
    if isinstance(theirs, Tensor):
        return [] if torch.equal(mine, theirs) else [where]
    pairs = theirs.items() if isinstance(theirs, dict) else enumerate(theirs)
    return [one for key, value in pairs for one in differing(mine[key], value, f"{where}[{key!r}]")]


@pytest.mark.parametrize("name", ZOO)
def test_an_architecture_computes_the_same_bits(name):
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    model = living(name, images)
    gm = trace(model)
    with torch.no_grad():
        mine, theirs = gm(images), model(images)
    if name.endswith("-cls"):
        mine = mine[0], mine[1]["logits"]
    assert differing(mine, theirs) == []
    assert len({site_of(node) for node in gm.graph.nodes}) == len(gm.graph.nodes)


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_a_head_without_nms_computes_the_same_bits(name):
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    model = living(name, images)
    model.model[-1].end2end = True
    gm = trace(model)
    with torch.no_grad():
        mine, theirs = gm(images), model(images)
    assert differing(mine, theirs) == []
    assert [kind for kind in gm.modules() if isinstance(kind, Selection)]


def test_predicting_without_nms_is_asked_for():
    assert not fxqat.load("yolo26n.yaml").source.head_spec.nms_free
    model = fxqat.load("yolo26n.yaml", nms_free=True)
    with torch.no_grad():
        rows, _ = model(torch.zeros(2, 3, 64, 64))
    assert rows.shape == (2, 84, 6), "left, top, right, bottom, score, class of the 84 anchors"
    words = refusal(fxqat.load, "yolo11n.yaml", nms_free=True)
    assert words.startswith("yolo11n.yaml: has no branches that predict without NMS; expected YOLOv10, YOLO26")


@pytest.mark.parametrize(
    "name", ["rtdetr-l", "yolov8n-world", "yoloe-11s", "yoloe-26n-seg", "yolo26n-depth", "yolo26n-sem"]
)
def test_what_no_family_takes_is_refused_with_the_reason(name):
    words = refusal(fxqat.load, f"{name}.yaml")
    assert words.startswith(f"{name}.yaml: its head is ")
    assert any(f"{kind} ({why}); expected one of: " in words for kind, why in REFUSED.items())
