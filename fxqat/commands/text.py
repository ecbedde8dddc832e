"""text: the graph, a line a node."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_policy
from fxqat.commands.command import Command
from fxqat.commands.float_model import add_model, float_model

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat text`` takes."""
    add_model(parser)
    add_policy(parser, "show the graph prepared with it")


def run(options: Namespace) -> None:
    """``fxqat text``."""
    import fxqat
    from fxqat.graph.text import text

    model = float_model(options)
    if options.policy:
        model, _ = fxqat.prepare(model, options.policy, patterns=options.patterns)
    print(text(model.gm.graph), end="")


COMMAND = Command(
    name="text",
    help="the graph, a line a node",
    example="fxqat text yolov8n.pt --policy w8a8",
    arguments=arguments,
    run=run,
)
