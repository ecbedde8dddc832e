"""Who may import whom: a table of rooms from the ground up, whose arrows only go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# The rooms of the house from the ground up, and the rooms that each may import: those above it in this table, since
# arrows only go down.
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "lazy": (),
    "version": (),
    "files": ("errors",),
    "graph": ("errors",),
    "quant": ("errors", "lazy"),
    "models": ("errors", "files", "graph"),
    "data": ("errors", "models"),
    "targets": ("errors", "quant"),
    "policy": ("errors", "graph", "models", "quant", "targets"),
    "passes": ("errors", "files", "graph", "models", "policy", "quant", "targets"),
    "checkpoint": ("errors", "files", "graph", "models", "passes", "policy", "quant", "version"),
    "runtime": ("errors", "files", "graph", "models", "passes", "quant", "targets", "version"),
    "workflow": ("checkpoint", "data", "errors", "graph", "models", "passes", "policy", "quant", "runtime"),
    "evaluation": ("checkpoint", "data", "errors", "files", "graph", "models", "passes", "runtime", "workflow"),
    "sensitivity": ("data", "errors", "evaluation", "files", "graph", "models", "passes", "quant", "workflow"),
    "search": (
        *("checkpoint", "data", "errors", "evaluation", "files", "graph", "models", "passes", "policy"),
        *("sensitivity", "targets", "workflow"),
    ),
    "training": (
        *("checkpoint", "data", "errors", "evaluation", "files", "graph", "lazy", "models", "passes", "policy"),
        *("quant", "runtime", "targets", "workflow"),
    ),
    "demo": ("errors",),
    "api": ("checkpoint", "models", "passes", "sensitivity", "training", "workflow"),
    "report": (
        *("api", "checkpoint", "data", "errors", "evaluation", "files", "graph", "models", "passes", "policy"),
        *("runtime", "sensitivity", "targets", "training", "version", "workflow"),
    ),
    "fxqat": ("api", "checkpoint", "graph", "lazy", "policy", "quant", "version"),  # public names, found on first use
    "commands": (
        *("data", "demo", "errors", "evaluation", "files", "fxqat", "graph", "models", "passes", "policy", "quant"),
        *("report", "runtime", "search", "sensitivity", "targets", "training", "version", "workflow"),
    ),
    "cli": ("commands", "errors", "files", "models"),
}
# Of some rooms another may use single names alone: pure functions on words, which touch no graph and no network.
NAMES = {
    ("policy", "graph"): ("fxqat.graph.site.covers", "fxqat.graph.site.nearest"),
    ("policy", "models"): ("fxqat.models.roles",),
}
# Libraries that one door guards.
DOORS = {
    "torch.ao": ("fxqat.quant.torch_ao",),
    "ultralytics": (
        "fxqat.models.*",
        "fxqat.data.*",
        "fxqat.training.*",
        "fxqat.evaluation.validators",
    ),
    "litert_torch": ("fxqat.runtime.litert_export",),
    "ai_edge_litert": (
        "fxqat.runtime.tflite_file",
        "fxqat.runtime.litert_session",
        "fxqat.evaluation.litert_worker",
    ),
    "patterns": (),
}


def modules() -> dict[str, Path]:
    files = (REPOSITORY / "fxqat").rglob("*.py")
    return {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): file for file in files
    }


def imports(source: str) -> Iterator[str]:
    """Every name that ``source`` imports, at its top or inside a function: ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, parents: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{parent}.") for parent in parents)


def room(name: str) -> str:
    """The room of a module, or of a name in one."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "fxqat"


def test_every_module_is_in_a_room():
    loose = [name for name in modules() if name != "fxqat" and name.split(".")[1] not in ROOMS]
    assert loose == []


def test_arrows_only_go_down():
    order = list(ROOMS)
    assert {(one, other) for one in ROOMS for other in ROOMS[one] if order.index(other) >= order.index(one)} == set()


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_from_the_rooms_of_its_own(module):
    here = room(module)
    for name in imports(modules()[module].read_text()):
        if name.partition(".")[0] != "fxqat" or room(name) == here:
            continue
        assert room(name) in ROOMS[here], f"{here} may not import {name}"
        names = NAMES.get((here, room(name)))
        assert names is None or under(name, names), f"{here} may not import {name}"


def test_no_room_may_import_what_it_does_not():
    used = {(room(module), room(name)) for module, file in modules().items() for name in imports(file.read_text())}
    assert [(one, other) for one in ROOMS for other in ROOMS[one] if (one, other) not in used] == []


def test_no_module_leads_back_to_itself():
    """Imports inside functions count, and those for type checkers."""
    found = modules()
    arrows = {
        name: {_module(one, found) for one in imports(file.read_text())} - {name, None} for name, file in found.items()
    }
    list(TopologicalSorter(arrows).static_order())  # or CycleError, with the way


def _module(name: str, found: dict[str, Path]) -> str | None:
    """The module that an imported ``name`` is, or stands in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in found), None)


@pytest.mark.parametrize("library", DOORS)
def test_a_guarded_library_has_one_door(library):
    users = [name for name, file in modules().items() if any(under(i, (library,)) for i in imports(file.read_text()))]
    assert [name for name in users if not any(fnmatch(name, door) for door in DOORS[library])] == []


def test_the_table_would_notice_a_forbidden_import():
    assert list(imports("def f():\n    from fxqat.passes import fuse")) == ["fxqat.passes.fuse"]
    assert room("fxqat.passes.fuse") not in ROOMS[room("fxqat.graph.match")]
    assert room("fxqat.load") == "fxqat" not in ROOMS["training"], "the public names lead to everything"
    assert not under("fxqat.graph.site.module_of", NAMES["policy", "graph"])
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


# What only a family may say: heads and layers by Ultralytics' names, and how a detection is laid out.
FAMILY_WORDS = re.compile(
    r"\bDetect\b|4 \+ nc|\bdfl\b|raw\[|\bmodel\.22\b|DetectionModel|DetectionTrainer|v8DetectionLoss"
)


def test_only_families_know_what_a_detection_is():
    rooms = [(name, file) for name, file in modules().items() if not fnmatch(name, "fxqat.models*")]
    told = [f"{name}: {line.strip()}" for name, file in rooms for line in family_words(file)]
    assert told == []


def family_words(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if FAMILY_WORDS.search(line)]
