"""doctor: what works on this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fxqat.commands.command import Command

if TYPE_CHECKING:
    from fxqat.runtime.installation import Finding

_SAYS: Mapping[bool | None, str] = {True: "yes", False: "no", None: "unknown"}
_EXACT: Mapping[bool | None, str] = {True: "exact", False: "NOT EXACT", None: "unknown"}


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat doctor`` takes."""
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(options: Namespace) -> None:
    """``fxqat doctor``."""
    from fxqat.json_text import json_text
    from fxqat.runtime.installation import findings

    found = findings()
    if options.json:
        print(json_text([vars(one) for one in found]))
        return
    lines = [(one.topic, one.name, _state(one), one.detail) for one in found]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for *cells, detail in lines:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), detail]))


def _state(one: Finding) -> str:
    return (_EXACT if one.topic == "target" else _SAYS)[one.works]


COMMAND = Command(
    name="doctor",
    help="what works here: processor, runtimes, versions, extras, compiler, targets that are exact",
    example="fxqat doctor\nfxqat doctor --json",
    arguments=arguments,
    run=run,
)
