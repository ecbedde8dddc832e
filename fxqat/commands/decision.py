"""The command that does what a verdict advises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fxqat.commands.command import default_name, typed
from fxqat.policy.correction_names import BIAS_CORRECTION
from fxqat.report.actions import CORRECT, FLOAT, MEASURE, RUNTIME, SEARCH, TARGET, TRAIN

if TYPE_CHECKING:
    from fxqat.report.verdict import Verdict

CORRECTED = ("--correct", BIAS_CORRECTION)


# Images for the metric, where there are labels, and images whose detections are compared.
_LABELLED, _COMPARED = 500, 64


@dataclass(frozen=True, kw_only=True)
class _Names:
    source: str
    data: str
    model: str
    file: str
    labelled: int
    at_hand: bool


_COMMANDS: Mapping[str, Callable[[_Names], Sequence[str]]] = {
    MEASURE: lambda n: _measured(n),
    RUNTIME: lambda n: ("verify", n.model, "--onnx", n.file, "--data", n.data),
    TARGET: lambda n: ("targets",),
    FLOAT: lambda n: _search(n),
    CORRECT: lambda n: ("run", n.source, "--data", n.data, *CORRECTED),
    TRAIN: lambda n: ("train", n.model, "--data", n.data),
    SEARCH: lambda n: _search(n),
}


def next_command(verdict: Verdict, *, source: str, data: str, model: str, file: str | None) -> str:
    """What a user types to do as the verdict advises; empty where nothing is left to do.

    Args:
        verdict: see there.
        source: the float checkpoint.
        data: the data set YAML.
        model: the .fxqat file that was measured.
        file: exported from it.
    """
    names = _Names(
        source=source,
        data=data,
        model=model,
        file=file or default_name(model, "_int8.onnx"),
        labelled=max(verdict.images, _LABELLED),
        at_hand=verdict.at_hand,
    )
    wanted = _COMMANDS.get(verdict.action)
    return typed("fxqat", *wanted(names)) if wanted else ""


def _measured(names: _Names) -> tuple[str, ...]:
    data = names.data if names.at_hand else "MORE_IMAGES"
    counts = ("--val", str(names.labelled), "--images", str(_COMPARED))
    return ("report", names.model, "--data", data, "--onnx", names.file, *counts)


def _search(names: _Names) -> tuple[str, ...]:
    return ("search", names.source, "--data", names.data, "--max-drop", "0.5")


def policy_with_floats(policy: str, sites: Sequence[str]) -> str:
    """The text of a policy that leaves ``sites`` in float and has the rest from ``policy`` (a name or a path)."""
    parent = str(Path(policy).resolve()) if Path(policy).is_file() else policy
    rules = [{"site": site, "float": True, "why": "one of the few that cause half of the error"} for site in sites]
    lines = [
        yaml.safe_dump(rule, default_flow_style=True, width=1000, sort_keys=False).strip().join(("  - ", ""))
        for rule in rules
    ]
    head = {"version": 1, "doc": f"{Path(policy).stem}, with the layers that cause most of the error in float."}
    return yaml.safe_dump({**head, "extends": parent}, sort_keys=False, width=1000) + "\n".join(["rules:", *lines, ""])
