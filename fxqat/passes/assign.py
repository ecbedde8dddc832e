"""The pass assign: record the policy's decision at every node. The pass insert acts on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx

from fxqat.graph.info import info_of
from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.site import operation, site_of
from fxqat.passes.quant_graph import annotate
from fxqat.passes.stages import ASSIGNED, FUSED
from fxqat.policy import Decision, Policy, Site
from fxqat.policy.reader import FORM
from fxqat.quant.spec import QuantSpec
from fxqat.targets import Target


def sites(gm: fx.GraphModule) -> list[Site]:
    """Everything in a fused graph that a policy can name, in the order of the computation."""
    return [_site(node) for node in decidable(gm)]


def decidable(gm: fx.GraphModule) -> list[fx.Node]:
    """The nodes that a policy decides: all that compute or move a tensor."""
    return [node for node in gm.graph.nodes if node.op not in {"output", "get_attr"}]


@dataclass(frozen=True, kw_only=True)
class Assign(TextPass):
    """Write the policy's decision, and what follows from it, into each node's QuantInfo."""

    policy: Policy
    name: str = "assign"
    requires: Stage | None = FUSED
    gives: Stage | None = ASSIGNED

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Decide."""
        target = self.policy.target
        for node in decidable(gm):
            target.place(_op(node), site_of(node))
        decisions = self.policy.assign(sites(gm))
        for node in decidable(gm):
            _write(node, decisions[site_of(node)], target)
        quantized = sum(not decision.qconfig.is_float for decision in decisions.values())
        return PassReport(says=f"{quantized} of {len(decisions)} sites quantized by {self.policy.name}")


def default_preactivation(activation: QuantSpec, function: str = "silu") -> QuantSpec:
    """The spec before an activation function where a policy gives none: the range with the least error after the
    function."""
    return replace(activation, observer="histogram", method="mse", through=function)


def default_input(activation: QuantSpec, target: Target) -> QuantSpec:
    """The spec of a float tensor that an integer layer reads, where a policy gives none: the target's codes, and the
    range chosen as the policy chooses the layer's output, but for what only holds of that output (a function after it,
    a range that is known)."""
    codes = {name: getattr(target.activation, name) for name in FORM}
    return replace(activation, **codes, through=None, fixed=None)


def _write(node: fx.Node, decision: Decision, target: Target) -> None:
    activation = decision.qconfig.activation
    before = decision.preactivation or (default_preactivation(activation) if activation else None)
    read = decision.input or (default_input(activation, target) if activation else None)
    weight = decision.qconfig.weight
    annotate(node, decision=decision, weight=weight, activation=activation, preactivation=before, input=read)


def _site(node: fx.Node) -> Site:
    return Site(path=site_of(node), op=_op(node), roles=frozenset(info_of(node).roles))


def _op(node: fx.Node) -> str:
    return "input" if node.op == "placeholder" else operation(node)
