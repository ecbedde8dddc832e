"""The pass canonicalize: each module call gets its own module, named by the node's site; modules without effect go;
activations that are functions become modules."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass

import torch
from torch import fx, nn

from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.prune import drop_unused_modules
from fxqat.graph.site import module_of, site_of
from fxqat.passes.functional_activations import activation_module
from fxqat.passes.stages import CANONICAL


@dataclass(frozen=True, kw_only=True)
class Canonicalize(TextPass):
    """Give every call its own module at the path of its site, so that a change at one site changes no other.

    A block may call one MaxPool2d three times; a module with parameters that is called twice keeps sharing them. An
    Identity, which stands for an activation or a branch that a block has not, leaves the graph, and so does a 0 that is
    added in the place of a branch, so that two convolutions of one input can then be one. An activation that the model
    computes by a function, such as ``F.relu``, becomes a module.
    """

    name: str = "canonicalize"
    gives: Stage | None = CANONICAL

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Split shared modules, drop those that do nothing."""
        for node in list(gm.graph.nodes):
            if (same := _unchanged(node)) is not None:
                node.replace_all_uses_with(same)
                gm.graph.erase_node(node)
        for node in list(gm.graph.nodes):
            if (module := activation_module(node)) is not None:
                _as_module(gm, node, module)
        parted = [node for node in gm.graph.nodes if node.op == "call_module" and node.target != site_of(node)]
        for node in parted:
            gm.add_submodule(site_of(node), copy.copy(module_of(node)))
            node.target = site_of(node)
        drop_unused_modules(gm)
        return PassReport(says=f"{len(parted)} calls of shared modules parted")


def _as_module(gm: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Let ``node`` call ``module``, at the path of its site, on its first argument."""
    gm.add_submodule(site_of(node), module)
    node.args, node.kwargs = (node.all_input_nodes[0],), {}
    node.op, node.target = "call_module", site_of(node)


def _unchanged(node: fx.Node) -> fx.Node | None:
    """What ``node`` gives as it is, None where it computes something."""
    if node.op == "call_module" and type(module_of(node)) is nn.Identity:
        return node.all_input_nodes[0]
    is_sum_with_nothing = node.target in (operator.add, torch.add) and len(node.args) == 2 and 0 in node.args
    return node.all_input_nodes[0] if is_sum_with_nothing and len(node.all_input_nodes) == 1 else None
