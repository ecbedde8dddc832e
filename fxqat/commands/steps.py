"""Commands that a command runs one after another, each shown as a user would type it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxqat.commands.command import Command, typed
from fxqat.commands.command_parser import parsed


def say(*words: object) -> None:
    """Print a command line with ``$`` before it."""
    print(f"$ {typed('fxqat', *words)}", flush=True)


def step(
    command: Command, *words: object, quiet: bool = False, run: Callable[..., Any] | None = None, told: bool = True
) -> Any:
    """Do what ``command`` does when ``words`` follow it on a command line.

    Args:
        command: see there.
        words: as they are typed.
        quiet: show no progress.
        run: instead of the command's own function; what it returns is returned.
        told: print the command line first.
    """
    if told:
        say(command.name, *words)
    options = parsed(command, list(map(str, words)))
    options.quiet = quiet or getattr(options, "quiet", False)
    return (run or command.run)(options)
