"""explain: which line of a policy decided each site."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_policy
from fxqat.commands.command import Command
from fxqat.commands.float_model import add_model, float_model
from fxqat.commands.policy_option import policy_of
from fxqat.errors import Problem
from fxqat.policy.resources import DEFAULT_POLICY

if TYPE_CHECKING:
    from fxqat.policy import Decision, Policy


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat explain`` takes."""
    add_model(parser)
    parser.add_argument("glob", nargs="?", default="**", metavar="GLOB", help="only these sites, such as 'model.2.**'")
    add_policy(parser, default=DEFAULT_POLICY)


def run(options: Namespace) -> None:
    """``fxqat explain``."""
    from fxqat.graph.site import covers, nearest

    policy = policy_of(options)
    decisions, integer, counts = _decided(options, policy)
    shown = [decision for site, decision in decisions.items() if covers(options.glob, site)]
    if not shown:
        raise Problem(options.glob, "covers no site", remedy=nearest(options.glob, decisions))
    width = max(len(decision.site.path) for decision in shown)
    for decision in shown:
        rule, qconfig = decision.rule, str(decision.qconfig)
        line = f"line {rule.line}" if rule.file == policy.name else rule.where
        print(
            f"{decision.site.path:<{width}}  {qconfig:<34}  {line}: {rule.selector}"
            + (f"  ({rule.why})" if rule.why else "")
        )
    total = sum(counts.values())
    inside = sum(count for site, count in counts.items() if site in integer)
    print(f"{inside / total:.2%} of {total / 1e9:.2f} billion multiply-adds (640x640) run in INT8")


def _decided(options: Namespace, policy: Policy) -> tuple[dict[str, Decision], set[str], dict[str, int]]:
    """The decisions, the layers that end up with integer weights, and multiply-adds, by site."""
    from fxqat.evaluation.multiply_adds import macs
    from fxqat.passes import Rules, fusing, preparing
    from fxqat.passes.quant_graph import QuantGraph, quant_info

    model, rules = float_model(options), Rules.load(*options.patterns)
    fused, _ = fusing(rules).run(model.gm)
    prepared, _ = preparing(policy, rules).run(model.gm)
    found = [quant_info(node).decision for node in prepared.graph.nodes]
    decisions = {decision.site.path: decision for decision in found if decision is not None}
    integer = {layer.site for layer in QuantGraph(prepared).layers() if layer.integer}
    return decisions, integer, macs(fused)


COMMAND = Command(
    name="explain",
    help="which line of a policy decided each site, and why",
    example="fxqat explain yolov8n.pt --policy critical 'model.2.**'",
    arguments=arguments,
    run=run,
)
