"""The float model that a command looks at."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_patterns, add_trust

if TYPE_CHECKING:
    from fxqat.models.detector import Detector


def add_model(parser: ArgumentParser) -> None:
    """The model, ``--patterns`` and ``--trust``."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .pt, an architecture such as yolov8n.yaml, or (text) a .fxqat"
    )
    add_patterns(parser)
    add_trust(parser)


def float_model(options: Namespace) -> Detector:
    """The model that was asked for, in float."""
    import fxqat

    return fxqat.load(options.model, trust=options.trust)
