"""completion: what a shell runs so that TAB completes commands, options and files."""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, Namespace

from fxqat.commands.command import Command
from fxqat.errors import Problem

SHELLS = ("bash", "zsh", "fish")
_LINES = """\
# bash, zsh: add to ~/.bashrc or ~/.zshrc:  eval "$(fxqat completion {shell})"
# fish: fxqat completion fish > ~/.config/fish/completions/fxqat.fish
"""


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat completion`` takes."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of: {', '.join(SHELLS)}")


def run(options: Namespace) -> None:
    """``fxqat completion``."""
    if importlib.util.find_spec("argcomplete") is None:
        remedy = "pip install 'fxqat[completion]'"
        raise Problem("argcomplete", "is not installed", expected="the package that completes words", remedy=remedy)
    import argcomplete

    print(_LINES.format(shell=options.shell) + argcomplete.shellcode(["fxqat"], shell=options.shell))


def complete(parser: ArgumentParser) -> None:
    """Answer a shell that asks for the words that may follow (argcomplete's protocol), and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)


COMMAND = Command(
    name="completion",
    help="print the code by which bash, zsh or fish completes fxqat's words",
    example="fxqat completion bash",
    arguments=arguments,
    run=run,
)
