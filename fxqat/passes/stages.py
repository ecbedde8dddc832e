"""What must hold at each stage of a graph, written as patterns. The pipeline checks it after the pass that gives the
stage."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from fxqat.graph.match import module, value
from fxqat.graph.pipeline import Promise, Stage, never
from fxqat.graph.site import module_of, site_of
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor


def _shared_sites(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    seen: set[str] = set()
    for node in gm.graph.nodes:
        if site_of(node) in seen:
            yield node, "has the site of another node"
        seen.add(site_of(node))


def _shared_modules(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    seen: set[object] = set()
    for node in gm.graph.nodes:
        if node.op == "call_module" and not isinstance(module_of(node), FakeQuantize):
            if module_of(node) in seen:
                yield node, "calls the module of another site"
            seen.add(module_of(node))


def _undecided(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op not in {"output", "get_attr"} and "decision" not in node.meta:
            yield node, "has no decision"


def _float_inputs(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(module_of(node), (QATConv2d, QATLinear)):
            quantized = module_of(node).weight_fake_quant is not None
            if quantized and node.args[0].meta.get("quantizer") is None:
                yield node, "has an integer weight but a float input"


def _float_bias(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(module_of(node), (QATConv2d, QATLinear)):
            integer, has_scale = module_of(node).weight_fake_quant is not None, len(node.args) == 2
            if integer != has_scale:
                yield node, "an integer weight and an input scale for the bias belong together"


def _input_scale(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(module_of(node), (QATConv2d, QATLinear)) and len(node.args) == 2:
            yield node, "rounds its bias, which this target keeps in float"


def _unpaired(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.target is quantize_per_tensor and any(user.target is not dequantize_per_tensor for user in node.users):
            yield node, "its codes reach an operation without a dequantize"


def _called_integer_but_float(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.target is torch.conv2d and node.meta.get("weight") is not None:
            weight = node.args[1]
            if weight.target not in {dequantize_per_channel, dequantize_per_tensor}:
                yield node, "the policy calls it integer, but its weight is float"
            if node.args[0].target is not dequantize_per_tensor:
                yield node, "the policy calls it integer, but its input is float"


x = value()
SITES = Promise(says="every node has a site of its own", broken=_shared_sites)
CANONICAL = Stage(
    name="CANONICAL", promises=(SITES, Promise(says="every site calls a module of its own", broken=_shared_modules))
)
FUSED = Stage(
    name="FUSED",
    promises=(
        SITES,
        never(module(nn.BatchNorm2d, module(nn.Conv2d, x)), "no batch norm stands after a convolution"),
        never(module(nn.Conv2d, x), "every convolution is a QATConv2d"),
        never(module(nn.Linear, x), "every linear layer is a QATLinear"),
    ),
)
ASSIGNED = Stage(name="ASSIGNED", promises=(SITES, Promise(says="the policy decided every site", broken=_undecided)))
_QUANTIZED = (
    SITES,
    Promise(says="integer layers have integer inputs", broken=_float_inputs),
    never(module(FakeQuantize, module(FakeQuantize, x)), "no value is quantized twice"),
)
QAT = Stage(
    name="QAT",
    promises=(*_QUANTIZED, Promise(says="integer layers know their input's scale, for the bias", broken=_float_bias)),
)
QAT_FLOAT_BIAS = Stage(
    name="QAT_FLOAT_BIAS", promises=(*_QUANTIZED, Promise(says="biases stay in float", broken=_input_scale))
)
INT8 = Stage(
    name="INT8",
    promises=(
        SITES,
        never(module(FakeQuantize), "no fake quantizer is left"),
        never(module((QATConv2d, QATLinear)), "no QAT module is left"),
        never(module(nn.BatchNorm2d), "no batch norm is left"),
        Promise(says="codes are read through a dequantize", broken=_unpaired),
        Promise(says="what the policy calls integer has integer weight and input", broken=_called_integer_but_float),
    ),
)

__all__ = ["ASSIGNED", "CANONICAL", "FUSED", "INT8", "QAT", "QAT_FLOAT_BIAS", "SITES"]
