"""What a prepared model is made of, site by site: what the policy decided, what became integer, what each pass did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import fx

import fxqat.api as api
from fxqat.checkpoint.model_io import policy_of, rebuilt, same_rules
from fxqat.errors import Problem
from fxqat.evaluation.multiply_adds import macs
from fxqat.graph.pipeline import Pipeline, Step
from fxqat.graph.site import operation, site_of
from fxqat.graph.text import line
from fxqat.models.detector import Detector, Recipe
from fxqat.passes import Assign, Rules, fusing, preparing
from fxqat.passes.assign import decidable
from fxqat.policy import Decision, Policy
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.report.drawing import Op

_LAYERS = (QATConv2d, QATLinear)


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
class Anatomy:
    """The parts in the order of the computation, the policy, and the passes as they ran."""

    parts: tuple[Part, ...]
    policy: Policy
    steps: tuple[Step, ...]

    @property
    def integer_share(self) -> float:
        """Multiply-adds in integers as a part of all, 0..1."""
        total = sum(part.macs for part in self.parts)
        return sum(part.macs for part in self.parts if part.integer) / total if total else 0.0


def dissect(model: Detector, patterns: Sequence[str | Path] = ()) -> Anatomy:
    """Run the passes of ``model``'s recipe again on a fresh trace, and look.

    Args:
        model: stage ``qat``; where it was calibrated, the pass lower runs on its own numbers.
        patterns: the rule files it was prepared with.

    Raises:
        Problem: another stage.
    """
    if model.stage != "qat":
        expected = "a prepared, calibrated or trained .fxqat"
        raise Problem(Path(model.source.name).name, f"is at stage {model.stage}", expected=expected)
    recipe = model.recipe
    policy = policy_of(recipe)
    rules = same_rules(recipe, patterns)
    start = rebuilt(model.source, Recipe(), model.source.name, (), ()).gm
    prepared, report = preparing(policy, rules).run(start)
    steps = report.steps
    if recipe.calibration:
        steps += api.convert(model, patterns=patterns)[1].steps
    return Anatomy(parts=_parts(start, prepared, policy, rules), policy=policy, steps=steps)


def _parts(start: fx.GraphModule, prepared: fx.GraphModule, policy: Policy, rules: Rules) -> tuple[Part, ...]:
    fused, _ = Pipeline((*fusing(rules).passes, Assign(policy=policy))).run(start)
    counts, after = macs(fused), {site_of(node): node for node in prepared.graph.nodes}
    return tuple(_part(node, after, counts) for node in decidable(fused))


def _part(node: fx.Node, after: dict[str, fx.Node], counts: dict[str, int]) -> Part:
    layer, site = _is_layer(node), site_of(node)
    found = after.get(site)
    integer = found is not None and (_integer_weight(found) if layer else _integer(found))
    return Part(
        site=site,
        op="input" if node.op == "placeholder" else operation(node),
        words=_words(node) if layer else "",
        inputs=tuple(site_of(one) for one in node.all_input_nodes if one.op != "get_attr"),
        decision=node.meta["decision"],
        integer=integer,
        layer=layer,
        macs=counts.get(site, 0),
    )


def _is_layer(node: fx.Node) -> bool:
    owner = node.graph.owning_module
    return owner is not None and node.op == "call_module" and isinstance(owner.get_submodule(str(node.target)), _LAYERS)


def _integer(node: fx.Node) -> bool:
    """Whether its value is of integers; a tuple of tensors is what it was parted from."""
    parted = operation(node) in {"chunk", "split"}
    return (node.all_input_nodes[0] if parted else node).meta.get("quantizer") is not None


def _integer_weight(node: fx.Node) -> bool:
    owner = node.graph.owning_module
    assert owner is not None
    return getattr(owner.get_submodule(str(node.target)), "weight_fake_quant", None) is not None


def _words(node: fx.Node) -> str:
    """The attributes in the line of its text."""
    return line(node).partition(") ")[2]
