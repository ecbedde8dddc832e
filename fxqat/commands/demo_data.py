"""demo-data: drawn traffic-sign scenes as a labelled data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_quiet
from fxqat.commands.command import Command
from fxqat.commands.progress import progress

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat demo-data`` takes."""
    parser.add_argument("out", metavar="OUT", help="folder to create")
    parser.add_argument("--images", type=int, default=600, metavar="N", help="images in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (default: 0)")
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat demo-data``."""
    from fxqat.demo import make_dataset

    with progress("drawing", options.quiet) as step:
        path = make_dataset(options.out, images=options.images, seed=options.seed, progress=step)
    print(f"wrote {path}")


COMMAND = Command(
    name="demo-data",
    help="draw traffic-sign scenes as a labelled data set",
    example="fxqat demo-data signs --images 600",
    arguments=arguments,
    run=run,
)
