"""quicken: a view of a trained graph that computes the same in fewer steps; it shares every module that has state."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import fx

from fxqat.graph.match import NoMatch, function, module, value
from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.rewrite import Edit, rule
from fxqat.graph.site import module_of, site_of
from fxqat.passes.quant_graph import annotate, quant_info
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.silu import QuantizedSiLU

before = module(FakeQuantize, value("x"), name="before")
gate = module(FakeQuantize, function(torch.sigmoid, before), name="gate")


@rule(module(FakeQuantize, function(operator.mul, before, gate), name="after"))
def quantized_silu(edit: Edit, x: fx.Node, before: fx.Node, gate: fx.Node, after: fx.Node) -> fx.Node:
    """Quantize, sigmoid, quantize, multiply, quantize: one table look-up."""
    quantizers = [module_of(node) for node in (before, gate, after)]
    if any(fake.ch_axis is not None for fake in quantizers):
        raise NoMatch("a quantizer is per channel", after)
    made = edit.call(QuantizedSiLU(*quantizers), x, at=f"silu.{site_of(after).replace('.', '_')}")
    annotate(made, quantizer=quant_info(after).quantizer)
    return made


@dataclass(frozen=True, kw_only=True)
class Quicken(TextPass):
    """Put QuantizedSiLU in place of the five operations it stands for. For views only: the text is no longer a model's,
    and quantizers leave the module tree."""

    name: str = "quicken"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Rewrite the view ``gm`` in place."""
        # not rewrite(): it deletes unused modules, and those of a quantizer that only its scale is read of belong to
        # the graph behind the view too
        count = sum(_quickened(gm, node) for node in list(gm.graph.nodes))
        gm.graph.lint()
        gm.recompile()
        return PassReport(says=f"{count} quantized_silu")


def _quickened(gm: fx.GraphModule, node: fx.Node) -> bool:
    if node._erased:
        return False
    try:
        quantized_silu.apply(gm, node)
    except NoMatch:
        return False
    return True
