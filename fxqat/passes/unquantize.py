"""unquantize: the float network behind a prepared graph, the teacher of distillation."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn

from fxqat.graph.match import function, module, value
from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.rewrite import Edit, rewrite, rule
from fxqat.graph.site import module_of, site_of
from fxqat.passes.fuse import summary
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d, QATLinear

x = value("x")


@rule(module(FakeQuantize, x))
def no_quantizer(edit: Edit, x: fx.Node) -> fx.Node:
    """A quantizer is taken out."""
    return x


@rule(function(operator.mul, x, function(torch.sigmoid, x)))
def silu(edit: Edit, x: fx.Node) -> fx.Node:
    """Sigmoid and Mul become SiLU again, half the passes over memory."""
    return edit.call(nn.SiLU(), x, at=f"silu.{site_of(edit.found.root).replace('.', '_')}")


@rule(module((QATConv2d, QATLinear), x, value(), name="layer"))
def float_layer(edit: Edit, x: fx.Node, layer: fx.Node) -> fx.Node:
    """An integer layer loses its weight's quantizer and its input's scale."""
    return edit.call(module_of(layer).to_float(), x, at=f"folded.{site_of(layer).replace('.', '_')}")


@rule(module((QATConv2d, QATLinear), x, name="layer"))
def folded_layer(edit: Edit, x: fx.Node, layer: fx.Node) -> fx.Node:
    """A float layer, batch norm folded."""
    return edit.call(module_of(layer).to_float(), x, at=f"folded.{site_of(layer).replace('.', '_')}")


@dataclass(frozen=True, kw_only=True)
class Unquantize(TextPass):
    """Take every quantizer out and fold every batch norm, as the weights are now."""

    name: str = "unquantize"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Rewrite ``gm`` in place."""
        done = rewrite(gm, (no_quantizer, silu, float_layer, folded_layer))
        return PassReport(says=summary(done), rewrites=done)
