"""convert: the INT8 reference graph."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from fxqat.commands.arguments import (
    add_output,
)
from fxqat.commands.command import Command, default_name, output


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat convert`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    add_output(parser, "X_int8.fxqat")


def run(options: Namespace) -> None:
    """``fxqat convert``."""
    import fxqat

    path = output(options, default_name(options.model, "_int8.fxqat"))
    int8, report = fxqat.convert(fxqat.load(options.model))
    fxqat.save(int8, path)
    print(report, end="")
    print(f"wrote {path}")


COMMAND = Command(
    name="convert",
    help="lower to the INT8 reference graph",
    example="fxqat convert yolov8n_ptq.fxqat",
    arguments=arguments,
    run=run,
)
