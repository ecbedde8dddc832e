"""The command line: a thin layer over the Python API. Bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fxqat.errors import Problem
from fxqat.models.environment import environment

_EPILOG = """\
from a checkpoint to a proven INT8 file:
  fxqat prepare yolov8n.pt --policy yolov8_critical      writes yolov8n.fxqat
  fxqat calibrate yolov8n.fxqat --data coco128.yaml      writes yolov8n_ptq.fxqat
  fxqat train yolov8n_ptq.fxqat --data coco128.yaml      writes yolov8n_qat.fxqat, if PTQ is not enough
  fxqat export yolov8n_ptq.fxqat                         writes yolov8n_int8.onnx
  fxqat val yolov8n.pt yolov8n_int8.onnx --data coco.yaml
  fxqat verify yolov8n_ptq.fxqat --data coco128.yaml
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from fxqat.commands import analyzing, demo, judging, looking, making, reporting, searching, targets, training

    top = _Parser(
        prog="fxqat",
        description="INT8 for YOLOv8: Torch FX passes, policies, calibration, export, proof.",
        epilog=_EPILOG,
    )
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    words = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    rooms = (making, training, judging, analyzing, searching, looking, reporting, targets, demo)
    for command in (command for room in rooms for command in room.COMMANDS):
        one = words.add_parser(
            command.name, help=command.help, description=command.help, epilog=f"example: {command.example}"
        )
        command.arguments(one)
        one.set_defaults(run=command.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    options = _parsed(arguments)
    try:
        options.run(options)
    except Problem as problem:
        print(f"fxqat: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fxqat: interrupted; no output was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) has seen enough
        return 0
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; unlike argparse alone, a GLOB may also stand after the options."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "glob", None) == "**":
        options.glob, rest = rest[0], []
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
