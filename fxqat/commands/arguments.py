"""Arguments that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from fxqat.errors import Problem
from fxqat.models.image_size import ImageSize

WORK = "folder for finished rows, named by content; a second run goes on from there (default: %(default)s)"


def add_output(parser: ArgumentParser, default: str) -> None:
    """``-o``."""
    parser.add_argument("-o", "--output", metavar="OUT", help=f"where to write (default: {default})")


def add_patterns(parser: ArgumentParser) -> None:
    """``--patterns``."""
    parser.add_argument(
        "--patterns", action="append", default=[], metavar="FILE.py", help="rules of your own; may be given again"
    )


def add_trust(parser: ArgumentParser) -> None:
    """``--trust``."""
    parser.add_argument("--trust", action="store_true", help="let MODEL.pt run code of its author while it is loaded")


def add_quiet(parser: ArgumentParser) -> None:
    """``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only results and errors")


def add_images(parser: ArgumentParser, *, limit: int | None, batch: int, required: bool = True) -> None:
    """``--data``, ``--images``, ``--imgsz``, ``--batch``."""
    parser.add_argument(
        "--data", required=required, metavar="D", help="data set YAML, folder of images, list file, or one image"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=limit,
        metavar="N",
        help=f"so many images, evenly spread (default: {limit or 'all'})",
    )
    add_image_size(parser)
    parser.add_argument("--batch", type=int, default=batch, help="images at a time (default: %(default)s)")


def add_image_size(parser: ArgumentParser, default: str = "as trained or calibrated, or 640") -> None:
    """``--imgsz``; None without it."""
    parser.add_argument(
        "--imgsz",
        type=image_size,
        metavar="H[,W]",
        help="pixels, one side or height and width (384,640, 384x640 or 384 640), multiples of the model's stride "
        f"(default: {default})",
    )


def image_size(text: str) -> ImageSize:
    """The size that a word on the command line states.

    Raises:
        ArgumentTypeError: it states none.
    """
    try:
        return ImageSize.parse(text)
    except Problem as problem:
        raise ArgumentTypeError(str(problem)) from problem


def add_target(parser: ArgumentParser, default: str) -> None:
    """``--target``."""
    from fxqat.targets import TARGETS

    parser.add_argument("--target", metavar="T", help=f"runtime: {', '.join(TARGETS)} (default: {default})")


def add_method(parser: ArgumentParser) -> None:
    """``--method``."""
    from fxqat.quant.spec import METHODS

    parser.add_argument(
        "--method",
        metavar="M",
        help=f"how activation ranges are chosen: {', '.join(METHODS)} (default: as the policy says)",
    )


def add_correct(parser: ArgumentParser) -> None:
    """``--correct``."""
    from fxqat.policy.correction_names import NAMES

    parser.add_argument(
        "--correct",
        metavar="NAMES",
        help=f"corrections to run, with commas: {', '.join(NAMES)}, or none (default: as the policy says)",
    )


def corrections(options: Namespace) -> tuple[str, ...] | None:
    """What ``--correct`` names; None where it is not given."""
    if options.correct is None:
        return None
    return () if options.correct == "none" else tuple(name.strip() for name in options.correct.split(","))


def add_input(parser: ArgumentParser) -> None:
    """``--input``."""
    parser.add_argument(
        "--input",
        default="float",
        metavar="FORM",
        help="what the file takes: float (0..1), uint8 (0..255) or uint8-nhwc (channels last, as cameras deliver); for "
        "LiteRT, always channels last: float, uint8 or int8 (default: %(default)s)",
    )


def add_policy(parser: ArgumentParser, what: str = "", *, default: str | None = None) -> None:
    """``--policy``; ``what`` it is for."""
    from fxqat.policy.resources import shipped

    told = f"{what}: " if what else ""
    parser.add_argument(
        "--policy",
        metavar="P",
        default=default,
        help=f"{told}a policy file, or a shipped one by name: {', '.join(shipped('policies'))}"
        + (f" (default: {default})" if default else ""),
    )
