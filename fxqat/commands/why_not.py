"""why-not: what a rule thought of a site."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_patterns, add_policy, add_trust
from fxqat.commands.command import Command

if TYPE_CHECKING:
    from fxqat.report.why_not import Answer


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat why-not`` takes."""
    parser.add_argument("rule", metavar="RULE", help="such as conv_bn_silu")
    parser.add_argument("model", metavar="MODEL", help="a .pt, or an architecture such as yolov8n.yaml")
    parser.add_argument(
        "glob",
        nargs="?",
        default="**",
        metavar="SITE",
        help="a site as it is called before the rule's pass, what lies under one, or a glob (default: all)",
    )
    add_policy(parser, "for the rules of quantize.py and lower.py", default="w8a8")
    add_patterns(parser)
    add_trust(parser)


def run(options: Namespace) -> None:
    """``fxqat why-not``."""
    import fxqat
    from fxqat.passes import Rules
    from fxqat.policy import Policy
    from fxqat.report.why_not import pattern_words, why_not

    rules = Rules.load(*options.patterns)
    rule = rules.named(options.rule)
    model = fxqat.load(options.model, trust=options.trust)
    found = why_not(model.gm, options.rule, options.glob, policy=Policy.load(options.policy), rules=rules)
    print(f"{rule.name} ({rule.source}) looks for {pattern_words(rule.pattern)}")
    shown = [one for one in found if one.depth] or found[:1] if len(found) > 1 else found
    for one in shown:
        print(one)
    if len(found) > 1:
        print(_summary(found))


def _summary(found: list[Answer]) -> str:
    fired = {one.fired for one in found if one.fired}
    nearly = sum(bool(one.depth) for one in found)
    taken = sum(one.taken is not None for one in found)
    rest = len(found) - sum(bool(one.fired) for one in found) - nearly - taken
    places = f"fired at {len(fired)} places, nearly at {nearly}"
    return f"of {len(found)} sites: {places}; {taken} were taken by rules before it, {rest} are nothing like it"


COMMAND = Command(
    name="why-not",
    help="why a rule did not fire",
    example="fxqat why-not conv_bn_silu yolov8n.pt model.2.m.0.cv1.conv",
    arguments=arguments,
    run=run,
)
