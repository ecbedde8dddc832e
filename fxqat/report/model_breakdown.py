"""What a prepared model is made of, site by site: what the policy decided, what became integer, what each pass did."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

import fxqat.api as api
from fxqat.checkpoint.network import network_of, policy_of
from fxqat.errors import Problem
from fxqat.evaluation.multiply_adds import macs
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import operation, site_of
from fxqat.graph.text import line
from fxqat.models.detector import Detector, PassRecord
from fxqat.passes import Assign
from fxqat.passes.assign import decidable
from fxqat.passes.quant_graph import QuantGraph, layer_of, quant_info
from fxqat.policy import Decision, Policy
from fxqat.report.drawing import Op


@dataclass(frozen=True, kw_only=True)
class Part:
    """One site of the fused graph.

    Attributes:
        site: its path.
        op: the word for what it computes.
        words: what shapes the computation, ``3->16 k3 s2``.
        inputs: sites that it reads.
        decision: of the policy.
        integer: its output, or for a layer its weight, is of integers.
        layer: it has a weight.
        macs: multiply-adds of one image.
    """

    site: str
    op: str
    words: str
    inputs: tuple[str, ...]
    decision: Decision
    integer: bool
    layer: bool
    macs: int

    @property
    def block(self) -> str:
        """The block of the source model: the first two words of the site."""
        return ".".join(self.site.split(".")[:2])

    @property
    def short(self) -> str:
        """The site within its block."""
        return self.site.removeprefix(f"{self.block}.")

    @property
    def precision(self) -> str:
        """``W8A8`` for a layer, ``A8`` for anything else whose values are integers, or ``float``."""
        if not self.integer:
            return "float"
        qconfig = self.decision.qconfig
        weight = f"W{qconfig.weight.bits}" if self.layer and qconfig.weight else ""
        return weight + (f"A{qconfig.activation.bits}" if qconfig.activation else "")

    def drawn(self) -> Op:
        """As the picture of the graph needs it."""
        return Op(site=self.site, block=self.block, inputs=self.inputs, layer=self.layer)


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The parts in the order of the computation, the policy, and the passes as they ran, lowering included where the
    model was calibrated."""

    parts: tuple[Part, ...]
    policy: Policy
    passes: tuple[PassRecord, ...]

    @property
    def integer_share(self) -> float:
        """Multiply-adds in integers as a part of all, 0..1."""
        total = sum(part.macs for part in self.parts)
        return sum(part.macs for part in self.parts if part.integer) / total if total else 0.0


def break_down(model: Detector) -> Breakdown:
    """Look at the network before the policy and at the graph after it.

    Args:
        model: stage ``qat``; where it was calibrated, the pass lower runs on its own numbers.

    Raises:
        Problem: another stage.
    """
    if model.stage != "qat":
        expected = "a prepared, calibrated or trained .fxqat"
        raise Problem(model.label, f"is at stage {model.stage}", expected=expected)
    policy, fused = policy_of(model.recipe), network_of(model)
    Pipeline((Assign(policy=policy),)).apply(fused)
    passes = api.convert(model)[0].recipe.passes if model.recipe.calibration else model.recipe.passes
    return Breakdown(parts=_parts(fused, model.gm), policy=policy, passes=passes)


def _parts(fused: fx.GraphModule, prepared: fx.GraphModule) -> tuple[Part, ...]:
    counts, after = macs(fused), {site_of(node): node for node in prepared.graph.nodes}
    return tuple(_part(node, after, counts) for node in decidable(fused))


def _part(node: fx.Node, after: dict[str, fx.Node], counts: dict[str, int]) -> Part:
    layer, site, decision = layer_of(node) is not None, site_of(node), quant_info(node).decision
    assert decision is not None, "the pass assign decides every site"
    return Part(
        site=site,
        op="input" if node.op == "placeholder" else operation(node),
        words=_words(node) if layer else "",
        inputs=tuple(site_of(one) for one in node.all_input_nodes if one.op != "get_attr"),
        decision=decision,
        integer=site in after and _computes_integers(after[site]),
        layer=layer,
        macs=counts.get(site, 0),
    )


def _computes_integers(node: fx.Node) -> bool:
    """Whether a layer's weight, or the value of anything else, is of integers."""
    owner, layer = node.graph.owning_module, layer_of(node)
    assert owner is not None
    return QuantGraph(owner).is_integer(node) if layer is None else layer.weight_fake_quant is not None


def _words(node: fx.Node) -> str:
    """The attributes in the line of its text."""
    return line(node).partition(") ")[2]
