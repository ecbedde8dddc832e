"""swap_activation: SiLU makes way for an activation that costs an integer runtime less; training repairs the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx, nn

from fxqat.errors import Problem
from fxqat.graph.match import NoMatch, module, value
from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Pipeline, Stage
from fxqat.graph.rewrite import Edit, Rule, rewrite, rule
from fxqat.graph.site import covers, module_of, nearest, site_of
from fxqat.models.activations import ACTIVATIONS, Activation
from fxqat.models.detector import Detector
from fxqat.quant.modules import QATConv2d, QATReLU


@dataclass(frozen=True, kw_only=True)
class SwapActivation(TextPass):
    """Put another activation in the place of SiLU, in a traced or a fused graph.

    Attributes:
        to: one of ACTIVATIONS.
        sites: a glob of convolutions' or activations' sites.

    Raises:
        Problem: an unknown activation, or a glob that covers no SiLU.
    """

    to: str = "relu"
    sites: str = "**"
    name: str = "swap_activation"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Rewrite ``gm`` in place; what it computes changes."""
        wanted = _known(self.to)
        done = rewrite(gm, _rules(wanted, self.sites))
        if not done.applied:
            raise Problem(self.name, f"{self.sites!r} covers no SiLU", remedy=nearest(self.sites, _silus(gm)))
        return PassReport(says=f"{len(done.applied)} SiLU are {self.to} now", rewrites=done)


def swap_activation(detector: Detector, to: str) -> Detector:
    """A float detector with ``to`` for every SiLU, which a file can hold: its architecture says so too.

    It detects next to nothing until it is trained: ``fxqat.train(swapped, data, teacher=detector, unlabelled=True)``.

    Raises:
        Problem: not a float detector, one without SiLU, or an unknown activation.
    """
    if detector.stage != "float":
        name = detector.label
        raise Problem(name, f"is at stage {detector.stage}", expected="stage float to swap activations")
    gm, _ = Pipeline((SwapActivation(to=to),)).run(detector.gm)
    architecture = {**detector.source.architecture, "activation": ACTIVATIONS[to].written}
    source = replace(detector.source, architecture=architecture, sha256="")
    return Detector(gm, source, detector.recipe).train(detector.training)


def _rules(wanted: Activation, sites: str) -> tuple[Rule, ...]:
    """The swap in a traced graph, and in a fused one."""

    @rule(module(nn.SiLU, value("x"), name="silu"))
    def traced_silu(edit: Edit, x: fx.Node, silu: fx.Node) -> fx.Node:
        """An activation that is a node of its own."""
        _check_covered(sites, silu)
        return edit.call(wanted.make(), x, at=silu)

    @rule(module(QATConv2d, value("x"), name="conv"))
    def fused_silu(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
        """An activation within a convolution: a ReLU stays there, any other follows it as a node of its own."""
        _check_covered(sites, conv)
        fused, made = module_of(conv), wanted.make()
        made = QATReLU() if isinstance(made, nn.ReLU) else made
        if not isinstance(fused.activation, nn.SiLU):
            raise NoMatch("its activation is not SiLU", conv)
        inside = isinstance(made, QATReLU)
        placed = edit.call(fused.with_activation(made if inside else None), x, at=conv)
        return placed if inside else edit.call(made, placed, at=f"{site_of(conv).rpartition('.')[0]}.act")

    return traced_silu, fused_silu


def _check_covered(sites: str, node: fx.Node) -> None:
    if not covers(sites, site_of(node)):
        raise NoMatch(f"{sites} does not cover it", node)


def _silus(gm: fx.GraphModule) -> list[str]:
    called = [(node, module_of(node)) for node in gm.graph.nodes if node.op == "call_module"]
    return [site_of(n) for n, one in called if isinstance(getattr(one, "activation", one), nn.SiLU)]


def _known(to: str) -> Activation:
    if to not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise Problem(
            "swap_activation",
            f"unknown activation {to!r}",
            expected=f"one of: {known}",
            remedy=nearest(to, ACTIVATIONS),
        )
    return ACTIVATIONS[to]
