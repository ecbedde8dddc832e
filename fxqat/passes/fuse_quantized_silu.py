"""The pass quicken: fuse quantizer, sigmoid, quantizer, mul, quantizer to one module in a view of a graph.

A view shares the modules of the graph that is trained or evaluated; the graph itself stays as it is.
"""

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
    """Quantize, sigmoid, quantize, multiply, quantize: one look-up in a table."""
    quantizers = [module_of(node) for node in (before, gate, after)]
    if any(fake.ch_axis is not None for fake in quantizers):
        raise NoMatch("a quantizer is per channel", after)
    made = edit.call(QuantizedSiLU(*quantizers), x, at=f"silu.{site_of(after).replace('.', '_')}")
    annotate(made, quantizer=quant_info(after).quantizer)
    return made


@dataclass(frozen=True, kw_only=True)
class Quicken(TextPass):
    """Replace the five operations of a quantized SiLU by one QuantizedSiLU.

    Only for views that are executed and not saved: the three quantizers are no longer modules of their own.
    """

    name: str = "quicken"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Rewrite the view ``gm`` in place."""
        # not rewrite(): it deletes unused modules, but a quantizer of which only the scale is read still belongs to the
        # graph that the view shares its modules with
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
