"""Codes carried through what only moves them: the same bits with fewer operations, and never where a scale changes."""

from __future__ import annotations

import pytest
import torch
from torch import fx

import fxqat
from fxqat.graph.site import operation
from fxqat.models.detector import cut
from fxqat.quant.torch_ao import dequantize_per_tensor, quantize_per_tensor
from fxqat.runtime.reference.redundant_qdq import as_exported, drop_before_others, move_ranges
from fxqat.targets import TARGETS, Place

OPENVINO = TARGETS["openvino"]
FINE, COARSE = (0.1, 3, 0, 255, torch.uint8), (0.2, 3, 0, 255, torch.uint8)


@pytest.fixture(scope="module")
def int8(yolov8n, images):
    return fxqat.convert(fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8", target="openvino")[0], [images]))[0]


def quantizes(gm: fx.GraphModule) -> list[fx.Node]:
    return [node for node in gm.graph.nodes if node.target is quantize_per_tensor]


def test_the_same_bits_with_fewer_operations(int8, images):
    whole, lean = cut(int8.gm, 0).eval(), as_exported(cut(int8.gm, 0).eval(), OPENVINO)
    assert torch.equal(lean(images), whole(images))
    moved = [one for one in quantizes(whole) if operation(one.args[0]) in {"cat", "getitem", "MaxPool2d", "Upsample"}]
    assert len(quantizes(whole)) - len(quantizes(lean)) == len(moved) > 20
    left = [operation(one.args[0]) for one in quantizes(lean) if one.args[0].op != "placeholder"]
    assert {OPENVINO.place(word, word) for word in left} == {Place.OWN}


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.restates])
def test_other_targets_keep_them(int8, name):
    view = cut(int8.gm, 0)
    count = len(quantizes(view))
    assert len(quantizes(as_exported(view, TARGETS[name]))) == count


@pytest.mark.parametrize(
    ("first", "second", "after", "taken"),
    [(FINE, FINE, FINE, 1), (FINE, FINE, COARSE, 0), (FINE, COARSE, FINE, 0), (FINE, COARSE, COARSE, 0)],
)
def test_only_where_every_scale_is_the_same(first, second, after, taken):
    graph = fx.Graph()

    def rounded(value: fx.Node, numbers: tuple[object, ...]) -> fx.Node:
        codes = graph.call_function(quantize_per_tensor, (value, *numbers))
        return graph.call_function(dequantize_per_tensor, (codes, *numbers))

    parts = [rounded(graph.placeholder(name), numbers) for name, numbers in (("a", first), ("b", second))]
    graph.output(rounded(graph.call_function(torch.cat, (parts, 1)), after))
    gm = fx.GraphModule(torch.nn.Module(), graph)
    a, b = torch.linspace(-1, 24, 60).view(1, 2, 30), torch.linspace(-3, 60, 30).view(1, 1, 30)
    wanted = gm(a, b)
    assert move_ranges(gm, OPENVINO) == taken
    assert torch.equal(gm(a, b), wanted)
    assert len(quantizes(gm)) == 3 - taken


def test_what_floats_alone_read_is_not_rounded_before_another_scale():
    graph = fx.Graph()

    def rounded(value: fx.Node, numbers: tuple[object, ...]) -> fx.Node:
        codes = graph.call_function(quantize_per_tensor, (value, *numbers))
        return graph.call_function(dequantize_per_tensor, (codes, *numbers))

    x = rounded(graph.placeholder("x"), FINE)
    moved = rounded(graph.call_method("flatten", (x, 1)), FINE)
    turned = graph.call_method("transpose", (moved, 0, 1))
    graph.output((rounded(turned, COARSE), graph.call_method("softmax", (turned, 0))))
    gm = fx.GraphModule(torch.nn.Module(), graph)
    x = torch.linspace(-1, 24, 60).view(2, 2, 15)
    wanted = gm(x)
    assert drop_before_others(gm, TARGETS["litert"]) == 1
    assert all(map(torch.equal, gm(x), wanted))
    assert len(quantizes(gm)) == 2
    assert drop_before_others(gm, TARGETS["litert"]) == 0


def test_what_computes_is_rounded():
    graph = fx.Graph()
    x = graph.call_function(dequantize_per_tensor, (graph.placeholder("codes"), *FINE))
    codes = graph.call_function(quantize_per_tensor, (graph.call_function(torch.sigmoid, (x,)), *FINE))
    graph.output(graph.call_function(dequantize_per_tensor, (codes, *FINE)))
    assert move_ranges(fx.GraphModule(torch.nn.Module(), graph), OPENVINO) == 0
