"""The whole command line, command by command."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fxqat.commands import (
    analyze,
    calibrate,
    completion,
    convert,
    demo,
    demo_data,
    diff,
    doctor,
    drift,
    explain,
    export,
    prepare,
    report,
    retarget,
    run,
    search,
    sensitivity,
    sites,
    swap,
    targets,
    text,
    train,
    val,
    verify,
    why_not,
)
from fxqat.commands.command import Command
from fxqat.commands.command_parser import CommandParser
from fxqat.version import library_versions


@dataclass(frozen=True, kw_only=True)
class Group:
    """Commands that serve one purpose, in the order in which ``fxqat --help`` prints them."""

    title: str
    purpose: str
    commands: tuple[Command, ...]


def _group(title: str, purpose: str, *modules: Any) -> Group:
    return Group(title=title, purpose=purpose, commands=tuple(one.COMMAND for one in modules))


GROUPS: tuple[Group, ...] = (
    _group(
        *("make", "from a checkpoint to the file that a runtime executes"),
        *(run, prepare, calibrate, convert, export, retarget, search),
    ),
    _group("train", "where calibration alone is not enough", train, swap),
    _group(
        *("measure", "what quantization costs, and where"),
        *(val, verify, report, drift, analyze, sensitivity),
    ),
    _group("explain", "what fxqat sees and decides", doctor, targets, sites, explain, text, diff, why_not, completion),
    _group("demo", "with nothing at hand", demo, demo_data),
)
COMMANDS: tuple[Command, ...] = tuple(command for group in GROUPS for command in group.commands)

_EPILOG = """\
the usual path:
  fxqat run best.pt --data data.yaml                 all of these in one go, with a report and a decision
or step by step:
  fxqat prepare best.pt --policy critical            writes best.fxqat
  fxqat calibrate best.fxqat --data data.yaml        writes best_ptq.fxqat
  fxqat train best_ptq.fxqat --data data.yaml        writes best_qat.fxqat, if calibration is not enough
  fxqat export best_ptq.fxqat                        writes best_int8.onnx
  fxqat val best.pt best_int8.onnx --data data.yaml  accuracy and speed against float
  fxqat verify best_ptq.fxqat --data data.yaml       proves that what runs is what was made

fxqat COMMAND --help tells more, with an example.
"""


def parser(*, whole: bool = False) -> argparse.ArgumentParser:
    """The parser of the whole command line; ``whole``: with the arguments of every command at once, not when used."""
    top = CommandParser(
        prog="fxqat",
        usage="fxqat [-h] [--version] COMMAND ...",
        description=f"INT8 for Ultralytics YOLO: calibrated or trained, exported, measured, proven.\n\n{_groups()}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, help="versions of fxqat, Python and the libraries that matter")
    words = top.add_subparsers(
        prog="fxqat", metavar="COMMAND", required=True, parser_class=CommandParser, help=argparse.SUPPRESS
    )
    for command in COMMANDS:
        one = words.add_parser(
            command.name,
            description=command.help,
            epilog=f"example:\n{textwrap.indent(command.example, '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.build = command.arguments
        one.set_defaults(run=command.run)
        if whole:
            one.add_arguments()
    return top


def command_line(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a whole command line, by default this process's; unlike argparse alone, a GLOB may also stand
    after the options."""
    top = parser()
    options, rest = top.parse_known_args(words)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "glob", None) == "**":
        options.glob, rest = rest[0], []
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _groups() -> str:
    """Each group's purpose, and a line of help for each of its commands, as wide as the terminal."""
    column = max(len(command.name) for command in COMMANDS) + 4
    wrapper = textwrap.TextWrapper(width=shutil.get_terminal_size().columns - 2, subsequent_indent=" " * column)
    lines: list[str] = []
    for group in GROUPS:
        lines += ["", f"{group.title}: {group.purpose}"]
        lines += [wrapper.fill(f"{f'  {one.name}':<{column}}{one.help}") for one in group.commands]
    return "\n".join(lines[1:])


class _Version(argparse.Action):
    """Prints the versions, found when they are asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        """Print a line for each."""
        print("\n".join(f"{name} {version}" for name, version in library_versions().items()))
        parser.exit()
