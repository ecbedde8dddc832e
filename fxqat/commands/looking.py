"""sites, explain, text, diff: what a graph is, what a policy decides, what each pass did."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.command import Command, add_patterns, add_trust
from fxqat.errors import Problem

if TYPE_CHECKING:
    from fxqat.graph.pipeline import Report
    from fxqat.models.detector import Detector
    from fxqat.policy import Decision

_PASSES = ("canonicalize", "fuse", "assign", "insert")


def _model_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a .pt, an architecture such as yolov8n.yaml, or (text) a .fxqat"
    )
    add_patterns(parser)
    add_trust(parser)


def _float_model(options: Namespace) -> Detector:
    import fxqat

    return fxqat.load(options.model, trust=options.trust)


def _sites(options: Namespace) -> None:
    from fxqat.passes import Rules, fusing, sites

    gm, _ = fusing(Rules.load(*options.patterns)).run(_float_model(options).gm)
    found = sites(gm)
    width = max(len(site.path) for site in found)
    for site in found:
        print(f"{site.path:<{width}}  {site.op:<12}  {' '.join(sorted(site.roles))}".rstrip())
    print(f"{len(found)} sites; select them by site (a glob), role or op in a policy")


def _explain_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("glob", nargs="?", default="**", metavar="GLOB", help="only these sites, such as 'model.2.**'")
    parser.add_argument("--policy", required=True, metavar="P", help="a policy file, or a shipped one by name")


def _explain(options: Namespace) -> None:
    from fxqat.graph.site import covers, nearest
    from fxqat.policy import Policy

    decisions, integer, counts = _decided(options)
    shown = [decision for site, decision in decisions.items() if covers(options.glob, site)]
    if not shown:
        raise Problem(options.glob, "covers no site", remedy=nearest(options.glob, decisions))
    width = max(len(decision.site.path) for decision in shown)
    name = Policy.load(options.policy).name
    for decision in shown:
        rule, qconfig = decision.rule, str(decision.qconfig)
        line = f"line {rule.line}" if rule.file == name else rule.where
        print(
            f"{decision.site.path:<{width}}  {qconfig:<34}  {line}: {rule.selector}"
            + (f"  ({rule.why})" if rule.why else "")
        )
    total = sum(counts.values())
    inside = sum(count for site, count in counts.items() if site in integer)
    print(f"{inside / total:.2%} of {total / 1e9:.2f} billion multiply-adds (640x640) run in INT8")


def _decided(options: Namespace) -> tuple[dict[str, Decision], set[str], dict[str, int]]:
    """The decisions, the layers that end up with integer weights, and multiply-adds, by site."""
    from fxqat.evaluation.multiply_adds import macs
    from fxqat.passes import Rules, fusing, preparing
    from fxqat.passes.quant_graph import QuantGraph, quant_info
    from fxqat.policy import Policy

    model, rules = _float_model(options), Rules.load(*options.patterns)
    fused, _ = fusing(rules).run(model.gm)
    prepared, _ = preparing(Policy.load(options.policy), rules).run(model.gm)
    found = [quant_info(node).decision for node in prepared.graph.nodes]
    decisions = {decision.site.path: decision for decision in found if decision is not None}
    integer = {layer.site for layer in QuantGraph(prepared).layers() if layer.integer}
    return decisions, integer, macs(fused)


def _text_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("--policy", metavar="P", help="show the graph prepared with this policy")


def _text(options: Namespace) -> None:
    import fxqat
    from fxqat.graph.text import text

    model = _float_model(options)
    if options.policy:
        model, _ = fxqat.prepare(model, options.policy, patterns=options.patterns)
    print(text(model.gm.graph), end="")


def _diff_arguments(parser: ArgumentParser) -> None:
    _model_arguments(parser)
    parser.add_argument("pass_name", metavar="PASS", choices=_PASSES, help=f"one of: {', '.join(_PASSES)}")
    parser.add_argument(
        "--policy", default="yolov8_w8a8", metavar="P", help="policy for assign and insert (default: %(default)s)"
    )


def _diff(options: Namespace) -> None:
    step = _report(options)[options.pass_name]
    print(step.diff or "no line of the graph changed\n", end="")
    print(f"{step.name}: {step.report.says} ({step.seconds * 1e3:.1f} ms)")


def _report(options: Namespace) -> Report:
    import fxqat

    return fxqat.prepare(_float_model(options), options.policy, patterns=options.patterns)[1]


COMMANDS = (
    Command(
        name="sites",
        help="what a policy can name",
        example="fxqat sites yolov8n.pt",
        arguments=_model_arguments,
        run=_sites,
    ),
    Command(
        name="explain",
        help="which line of a policy decided each site, and why",
        example="fxqat explain yolov8n.pt --policy yolov8_critical 'model.2.**'",
        arguments=_explain_arguments,
        run=_explain,
    ),
    Command(
        name="text",
        help="the graph, a line a node",
        example="fxqat text yolov8n.pt --policy yolov8_w8a8",
        arguments=_text_arguments,
        run=_text,
    ),
    Command(
        name="diff",
        help="what a pass changed",
        example="fxqat diff yolov8n.pt fuse",
        arguments=_diff_arguments,
        run=_diff,
    ),
)
