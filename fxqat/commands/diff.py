"""diff: what a pass changed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_policy
from fxqat.commands.command import Command
from fxqat.commands.float_model import add_model, float_model

if TYPE_CHECKING:
    from fxqat.graph.pipeline import Report


_PASSES = ("canonicalize", "fuse", "assign", "insert")


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat diff`` takes."""
    add_model(parser)
    parser.add_argument("pass_name", metavar="PASS", choices=_PASSES, help=f"one of: {', '.join(_PASSES)}")
    add_policy(parser, "for assign and insert", default="w8a8")


def run(options: Namespace) -> None:
    """``fxqat diff``."""
    step = _report(options)[options.pass_name]
    print(step.diff or "no line of the graph changed\n", end="")
    print(f"{step.name}: {step.report.says} ({step.seconds * 1e3:.1f} ms)")


def _report(options: Namespace) -> Report:
    import fxqat

    return fxqat.prepare(float_model(options), options.policy, patterns=options.patterns)[1]


COMMAND = Command(
    name="diff",
    help="what a pass changed",
    example="fxqat diff yolov8n.pt fuse",
    arguments=arguments,
    run=run,
)
