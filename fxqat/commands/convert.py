"""convert: the INT8 reference graph."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_output, add_quiet
from fxqat.commands.command import Command, default_name, mark, output
from fxqat.commands.progress import working

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat convert`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    add_output(parser, "X_int8.fxqat")
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat convert``."""
    converted(options)


def converted(options: Namespace) -> Path:
    """``fxqat convert``; the file that was written."""
    import fxqat

    output(options, default_name(options.model, "_int8.fxqat"), ".fxqat")
    model = fxqat.load(options.model)
    with working("converting", options.quiet, "convert", len(model.gm.graph.nodes)):
        int8, report = fxqat.convert(model)
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
