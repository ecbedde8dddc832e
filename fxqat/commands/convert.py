"""convert: the INT8 reference graph."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_output
from fxqat.commands.command import Command, default_name, mark, output

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat convert`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    add_output(parser, "X_int8.fxqat")


def run(options: Namespace) -> None:
    """``fxqat convert``."""
    converted(options)


def converted(options: Namespace) -> Path:
    """``fxqat convert``; the file that was written."""
    import fxqat

    output(options, default_name(options.model, "_int8.fxqat"), ".fxqat")
    int8, report = fxqat.convert(fxqat.load(options.model))
    path = output(options, default_name(options.model, f"{mark(int8, '_float')}.fxqat"), ".fxqat")
    fxqat.save(int8, path)
    print(report, end="")
    print(f"wrote {path}")
    return path


COMMAND = Command(
    name="convert",
    help="lower to the INT8 reference graph",
    example="fxqat convert yolov8n_ptq.fxqat",
    arguments=arguments,
    run=run,
)
