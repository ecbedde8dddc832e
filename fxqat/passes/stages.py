"""The stages of a graph: what may occur in each and what must hold, written as patterns. The pipeline checks a stage
after the pass that gives it, and before one that requires it.

Up to FUSED a model may hold operations that no target knows; assign refuses them by their sites. From there on a stage
is closed: it accepts its target's vocabulary and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import fx, nn

from fxqat.graph.match import module, value
from fxqat.graph.pipeline import Promise, Stage, never
from fxqat.graph.site import module_of, site_of
from fxqat.models.families.opaque import TrainingOnly
from fxqat.passes.quant_graph import QuantGraph, is_quantizer, quant_info
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor
from fxqat.targets import Target


def _shared_sites(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    seen: set[str] = set()
    for node in gm.graph.nodes:
        if site_of(node) in seen:
            yield node, "has the site of another node"
        seen.add(site_of(node))


def _shared_modules(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    seen: set[object] = set()
    for node in gm.graph.nodes:
        if node.op == "call_module" and not is_quantizer(node):
            if module_of(node) in seen:
                yield node, "calls the module of another site"
            seen.add(module_of(node))


def _undecided(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op not in {"output", "get_attr"} and quant_info(node).decision is None:
            yield node, "has no decision"


def _float_inputs(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    graph = QuantGraph(gm)
    for layer in graph.layers():
        if layer.integer and not graph.is_integer(layer.input):
            yield layer.node, "has an integer weight but a float input"


def _float_bias(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for layer in QuantGraph(gm).layers():
        if layer.integer != (layer.input_scale is not None):
            yield layer.node, "an integer weight and an input scale for the bias belong together"


def _input_scale(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for layer in QuantGraph(gm).layers():
        if layer.input_scale is not None:
            yield layer.node, "rounds its bias, which this target keeps in float"


def _unpaired(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.target is quantize_per_tensor and any(user.target is not dequantize_per_tensor for user in node.users):
            yield node, "its codes reach an operation without a dequantize"


def _called_integer_but_float(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.target is torch.conv2d and quant_info(node).weight is not None:
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
_QUANTIZERS = frozenset({"FakeQuantize", "LSQFakeQuantize"})
# What lowering leaves nothing of.
_TRAINED = frozenset({"QATConv2d", "QATLinear", "QATBatchNorm2d", "BatchNorm2d", "Dropout"})
# What QAT layers, quantizers and the expectation of a distribution become.
_LOWERED = frozenset(
    {
        *("quantize_per_tensor", "dequantize_per_tensor", "dequantize_per_channel"),
        *("conv2d", "linear", "matmul", "mul", "add", "Conv2d", "Linear"),
    }
)


def qat(target: Target) -> Stage:
    """The stage of a graph that is calibrated and trained for ``target``."""
    bias = (
        Promise(says="integer layers know their input's scale, for the bias", broken=_float_bias)
        if target.integer_bias
        else Promise(says="biases stay in float", broken=_input_scale)
    )
    return Stage(
        name=f"QAT for {target.name}",
        accepts=frozenset(target.operations) | _QUANTIZERS,
        promises=(
            SITES,
            Promise(says="layers hold activations that the target knows", broken=partial(_activations, target)),
            Promise(says="integer layers have integer inputs", broken=_float_inputs),
            never(module(FakeQuantize, module(FakeQuantize, x)), "no value is quantized twice"),
            bias,
        ),
    )


def int8(target: Target) -> Stage:
    """The stage of the INT8 reference graph for ``target``."""
    return Stage(
        name=f"INT8 for {target.name}",
        accepts=(frozenset(target.operations) - _TRAINED) | _LOWERED,
        promises=(
            SITES,
            never(module(TrainingOnly, x), "nothing is left that matters in training alone"),
            Promise(says="codes are read through a dequantize", broken=_unpaired),
            Promise(
                says="what the policy calls integer has integer weight and input", broken=_called_integer_but_float
            ),
        ),
    )


def _activations(target: Target, gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(module_of(node), (QATConv2d, QATLinear)):
            kind = type(module_of(node).activation).__name__
            if kind not in target.operations and module_of(node).activation is not None:
                yield node, f"its activation is {kind}"


__all__ = ["ASSIGNED", "CANONICAL", "FUSED", "SITES", "int8", "qat"]
