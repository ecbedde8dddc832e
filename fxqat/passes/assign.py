"""assign: the policy's decision for every site. It decides, and changes nothing; insert does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx

from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.site import operation, site_of
from fxqat.passes.stages import ASSIGNED
from fxqat.policy import Decision, Policy, Site
from fxqat.quant.spec import QuantSpec


def sites(gm: fx.GraphModule) -> list[Site]:
    """Everything in a fused graph that a policy can name, in the order of the computation."""
    return [_site(node) for node in decidable(gm)]


def decidable(gm: fx.GraphModule) -> list[fx.Node]:
    """The nodes that a policy decides: all that compute or move a tensor."""
    return [node for node in gm.graph.nodes if node.op not in {"output", "get_attr"}]


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Write the policy's decision into each node: ``decision``, ``weight``, ``activation``, ``preactivation``."""

    policy: Policy
    name: str = "assign"
    gives: Stage | None = ASSIGNED

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Decide."""
        target = self.policy.target
        for node in decidable(gm):
            target.place(_op(node), site_of(node))
        decisions = self.policy.assign(sites(gm))
        for node in decidable(gm):
            _write(node, decisions[site_of(node)])
        quantized = sum(not decision.qconfig.is_float for decision in decisions.values())
        return PassReport(says=f"{quantized} of {len(decisions)} sites quantized by {self.policy.name}")


def default_preactivation(activation: QuantSpec, function: str = "silu") -> QuantSpec:
    """The spec before an activation function where a policy gives none: the range with the least error after the
    function."""
    return replace(activation, observer="histogram", method="mse", through=function)


def _write(node: fx.Node, decision: Decision) -> None:
    activation = decision.qconfig.activation
    node.meta["decision"] = decision
    node.meta["weight"] = decision.qconfig.weight
    node.meta["activation"] = activation
    node.meta["preactivation"] = decision.preactivation or (default_preactivation(activation) if activation else None)


def _site(node: fx.Node) -> Site:
    return Site(path=site_of(node), op=_op(node), roles=frozenset(node.meta.get("roles", ())))


def _op(node: fx.Node) -> str:
    return "input" if node.op == "placeholder" else operation(node)
