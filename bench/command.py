"""How benchmarks begin and end: a parser, JSON where it is asked for, one line and exit code 2 for bad input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from fxqat.errors import Problem
from fxqat.files import check_folder, check_writable, write_text


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m bench.NAME``, described by its docstring's first line, with ``--json``."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=(doc or "").partition("\n")[0])
    made.add_argument("--json", metavar="FILE", help="write every number here, too")
    return made


def run(options: argparse.Namespace, measure: Callable[[argparse.Namespace], Any]) -> int:
    """Measure, and write the result to ``options.json`` where that is given.

    Args:
        options: of the command line.
        measure: prints what it finds, and gives it ready for JSON.

    Returns:
        The exit code: 0, or 2 after a Problem, which is printed to stderr.
    """
    file, work = getattr(options, "json", None), getattr(options, "work", None)
    try:
        if file:
            check_writable(file)
        if work:
            check_folder(work)
        result = measure(options)
        if file:
            write_text(file, json.dumps(result, indent=2) + "\n")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0
