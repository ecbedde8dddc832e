"""swap: another activation in the place of SiLU, to be trained in."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from fxqat.commands.arguments import add_output, add_quiet, add_trust
from fxqat.commands.command import Command, default_name, output, say_unnamed, typed
from fxqat.commands.progress import working


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat swap`` takes."""
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt, or a float .fxqat")
    from fxqat.models.activations import ACTIVATIONS

    parser.add_argument("--to", default="relu", help=f"{', '.join(ACTIVATIONS)} (default: %(default)s)")
    add_output(parser, "MODEL_TO.fxqat")
    add_quiet(parser)
    add_trust(parser)


def run(options: Namespace) -> None:
    """``fxqat swap``."""
    import fxqat
    from fxqat.passes.swap_activation import swap_activation

    path = output(options, default_name(options.model, f"_{options.to}.fxqat"), ".fxqat")
    with working(f"swapping activations of {options.model}", options.quiet):
        model = fxqat.load(options.model, trust=options.trust)
        say_unnamed(model, options.model)
        fxqat.save(swap_activation(model, options.to), path)
    print(f"wrote {path}")
    tail = ("--data", "D", "--epochs", 30, "--unlabelled", "--set", "lr0=0.0005", "--set", "freeze_bn=1.0")
    print(f"it has to learn again: {typed('fxqat', 'train', path, '--teacher', options.model, *tail)}")


COMMAND = Command(
    name="swap",
    help="put another activation in the place of SiLU, before training",
    example="fxqat swap yolov8n.pt --to relu",
    arguments=arguments,
    run=run,
)
