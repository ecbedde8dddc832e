"""The command line: a thin layer over the Python API. Bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from fxqat.commands.command import check_places
from fxqat.commands.completion import complete
from fxqat.commands.parser import command_line, parser
from fxqat.errors import Problem
from fxqat.files import disk_refusals
from fxqat.models.environment import environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    _print_any_character()
    if "_ARGCOMPLETE" in os.environ:
        complete(parser(whole=True))
    options = command_line(arguments)
    with _ending_cleanly():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        with disk_refusals():
            check_places(options)
            options.run(options)
            print(end="", flush=True)
    except Problem as problem:
        print(f"fxqat: {problem}", file=sys.stderr)
        _drop_output()
        return 2
    except UnicodeEncodeError as error:
        if error.encoding != sys.getfilesystemencoding():
            raise
        what = f"has characters that file names have not in this locale ({error.encoding})"
        print(f"fxqat: {error.object!a}: {what}; set PYTHONUTF8=1", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fxqat: interrupted; no output was written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _drop_output()
    return 0


def _print_any_character() -> None:
    """What the terminal's encoding lacks is printed as an escape: no work is lost for a character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Let Python's own flush at the end of the process find nobody to complain to."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """When the process is asked to end (SIGTERM), what is half-written is removed first; the exit code is 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
