"""The parser of one command: one line for an error, arguments only when the command is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fxqat.commands.command import Command


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose arguments are added at the first parsing.

    Help texts name what the code has (targets, policies, methods), which takes torch to import; a list of all commands
    does without.
    """

    build: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options, and what was not understood."""
        self.add_arguments()
        return super().parse_known_args(_joined(sys.argv[1:] if args is None else args), namespace)

    def add_arguments(self) -> None:
        """Add the command's arguments, once."""
        build, self.build = self.build, None
        if build is not None:
            build(self)

    def error(self, message: str) -> NoReturn:
        """End with the message in one line and exit code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


_SIZE = "--imgsz"


def _joined(words: Sequence[str]) -> list[str]:
    """``words`` with ``--imgsz 384 640`` as ``--imgsz 384,640``: an option of argparse that takes one or two words
    would also take a model's name."""
    found = list[str]()
    for word in words:
        if word.isdigit() and found and _is_one_side(found[-2:]):
            found[-1] += f",{word}"
        else:
            found.append(word)
    return found


def _is_one_side(last: Sequence[str]) -> bool:
    """Whether the ``last`` words are ``--imgsz`` and one side."""
    name, _, side = last[-1].partition("=")
    name, side = (name, side) if side else (last[0], last[-1])
    return name == _SIZE and side.isdigit()


def parsed(command: Command, words: Sequence[str]) -> argparse.Namespace:
    """The options of ``command`` when ``words`` follow it on a command line."""
    one = CommandParser(prog=f"fxqat {command.name}")
    one.build = command.arguments
    return one.parse_args(words)
