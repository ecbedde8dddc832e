"""The command line: a thin layer over the Python API. Bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fxqat.commands.parser import parser
from fxqat.errors import Problem
from fxqat.models.environment import environment


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
