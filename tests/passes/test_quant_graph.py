"""The note of a node, and the questions that a quantized graph answers."""

from __future__ import annotations

import torch
from torch import fx, nn

from fxqat.graph.info import NodeInfo, set_info
from fxqat.graph.match import module, value
from fxqat.graph.rewrite import rewrite, rule
from fxqat.graph.site import assign_sites, site_of
from fxqat.passes.quant_graph import QuantGraph, QuantInfo, annotate, is_quantizer, layer_of, quant_info, rounded_site
from fxqat.quant.fake_quantize import make_fake_quantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.spec import QuantSpec

A8 = QuantSpec(signed=False, symmetric=False)
W8 = QuantSpec(axis=0)


class Small(nn.Module):
    """Two quantizers, the first called twice; a layer with an integer weight and one without."""

    def __init__(self):
        super().__init__()
        self.conv = QATConv2d.fused(nn.Conv2d(3, 4, 1))
        self.linear = QATLinear.fused(nn.Linear(4, 2))
        self.conv.quantize_weight(W8)
        self.first, self.second = make_fake_quantize(A8), make_fake_quantize(A8)

    def forward(self, x):
        x = self.first(x)
        y, _ = self.conv(x, self.first.scale).chunk(2, 1)
        return self.linear(self.second(self.first(x).mean((2, 3)).repeat(1, 2)[:, :4])) + y.mean()


class KeepsLayers(fx.Tracer):
    def is_leaf_module(self, m, path):
        return not isinstance(m, Small)


def traced():
    root = Small()
    graph = KeepsLayers().trace(root)
    assign_sites(graph)
    return fx.GraphModule(root, graph)


def named(gm, site):
    return next(node for node in gm.graph.nodes if site_of(node) == site)


def test_layers_come_in_order_with_the_scale_of_their_bias():
    layers = QuantGraph(traced()).layers()
    assert [(one.site, one.integer) for one in layers] == [("conv", True), ("linear", False)]
    assert [one.input_scale and site_of(one.input_scale) for one in layers] == ["first.scale", None]
    assert [site_of(one.input) for one in layers] == ["first", "second"]


def test_a_quantizer_that_is_called_twice_comes_once_at_its_first_call():
    gm = traced()
    graph = QuantGraph(gm)
    assert graph.quantizers() == {"first": gm.first, "second": gm.second}
    assert graph.quantizers_by_path() == {"first": gm.first, "second": gm.second}
    assert [site_of(node) for node in gm.graph.nodes if is_quantizer(node)] == ["first", "first_1", "second"]
    assert [site_of(node) for node in gm.graph.nodes if layer_of(node)] == ["conv", "linear"]


def test_a_value_is_of_integers_where_a_quantizer_is_noted_and_a_tuple_where_its_whole_is():
    gm = traced()
    graph, chunk = QuantGraph(gm), named(gm, "chunk")
    assert not graph.is_integer(chunk)
    annotate(named(gm, "conv"), quantizer="first")
    assert graph.is_integer(named(gm, "conv"))
    assert graph.is_integer(chunk)


def test_a_tensor_has_its_site_for_a_name_unless_it_is_called_otherwise():
    gm = traced()
    conv = named(gm, "conv")
    assert QuantGraph(gm).tensor(conv) == "conv"
    annotate(conv, tensor_name="conv.before")
    assert QuantGraph(gm).tensor(conv) == "conv.before"


def test_the_site_that_a_quantizer_rounds_stands_before_its_suffix():
    node = named(traced(), "first")
    annotate(node, site="model.0.conv.quantized")
    assert rounded_site(node) == "model.0.conv"


def test_annotating_a_plain_note_keeps_what_it_knew():
    node = named(traced(), "conv")
    set_info(node, NodeInfo(site="conv", roles=("first_conv",), rule="r"))
    assert quant_info(node) == QuantInfo(site="conv", roles=("first_conv",), rule="r")
    annotate(node, activation=A8)
    assert quant_info(node) == QuantInfo(site="conv", roles=("first_conv",), rule="r", activation=A8)


def test_a_node_that_a_rule_puts_in_is_told_all_but_the_quantizer():
    @rule(module(nn.ReLU, value("x"), name="act"))
    def relu_to_tanh(edit, x, act):
        return edit.function(torch.tanh, x, at=act)

    gm = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    assign_sites(gm.graph)
    annotate(named(gm, "0"), activation=A8, quantizer="q", tensor_name="t")
    rewrite(gm, (relu_to_tanh,))
    assert quant_info(named(gm, "0")) == QuantInfo(site="0", rule="relu_to_tanh", activation=A8, tensor_name="t")
