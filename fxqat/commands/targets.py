"""targets: the runtimes that files can be made for, and whether this machine computes them exactly."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from fxqat.commands.command import Command

_SAYS = {True: "exact here", False: "NOT EXACT HERE", None: "cannot be tried here"}


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat targets`` takes."""
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(options: Namespace) -> None:
    """``fxqat targets``."""
    from fxqat.json_text import json_text
    from fxqat.runtime.processor import processor

    rows = _rows()
    if options.json:
        print(json_text({"processor": processor().name, "flags": processor().flags, "targets": rows}))
        return
    print(f"processor: {processor()}")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"\n{row['name']:<{width}}  {row['doc']}\n{'':<{width}}  {_SAYS[row['exact_here']]}: {row['why']}")


def _rows() -> list[dict[str, Any]]:
    from fxqat.runtime.exactness import target_here
    from fxqat.targets import TARGETS

    rows = []
    for target in TARGETS.values():
        exact, why = target_here(target)
        rows.append({"name": target.name, "doc": target.doc, "exact_here": exact, "why": why})
    return rows


COMMAND = Command(
    name="targets",
    help="list the runtimes that files can be made for, and which of them this machine computes exactly",
    example="fxqat targets",
    arguments=arguments,
    run=run,
)
