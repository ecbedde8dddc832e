"""Who may import whom: a table of rooms from the ground up, whose arrows only go down."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from ultralytics.nn.modules import block, head

from fxqat.models.families import FAMILIES, REFUSED
from fxqat.models.families.blocks import BLOCKS
from fxqat.models.families.opaque import Opaque

REPOSITORY = Path(__file__).resolve().parents[1]
# The rooms of the house from the ground up, and the rooms that each may import: those above it in this table, since
# arrows only go down. A nested package is a room of its own where the rest of its package stands on it, or it on the
# rest; so is a module on which both stand. A module is in the room with the longest name that its own begins with.
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "json_text": (),
    "lazy": (),
    "version": (),
    "files": ("errors",),
    "graph": ("errors",),
    "quant": ("errors",),
    "quant.modules": ("quant",),
    "targets": ("errors", "quant"),
    "models.family": (),  # the contract: what the families say, and what the rest asks
    "models.families": ("errors", "models.family", "targets"),
    "models": ("errors", "files", "graph", "models.families", "models.family"),
    "data": ("errors", "models", "models.family"),
    "policy": ("errors", "graph", "models", "quant", "targets"),
    "passes": (
        *("errors", "files", "graph", "models", "models.families", "policy", "quant", "quant.modules", "targets"),
    ),
    "checkpoint": (
        *("errors", "files", "graph", "models", "models.families", "passes", "policy", "quant", "quant.modules"),
        *("version",),
    ),
    "runtime.reference": ("graph", "models", "models.families", "passes", "quant", "targets", "version"),
    "runtime.onnx": ("errors", "files", "graph", "models", "quant", "runtime.reference", "targets"),
    "runtime.tflite": (
        *("errors", "files", "graph", "models", "models.families", "models.family", "quant", "runtime.reference"),
        *("targets",),
    ),
    "runtime": (
        *("errors", "files", "graph", "models", "models.family", "passes", "quant", "runtime.onnx"),
        *("runtime.reference", "runtime.tflite", "targets", "version"),
    ),
    "workflow": ("checkpoint", "data", "errors", "graph", "models", "passes", "policy", "quant", "runtime"),
    "evaluation": (
        *("checkpoint", "data", "errors", "files", "graph", "models", "models.families", "models.family", "passes"),
        *("runtime", "runtime.onnx", "runtime.tflite", "workflow"),
    ),
    "sensitivity": (
        *("data", "errors", "evaluation", "files", "graph", "json_text", "models", "models.family", "passes", "quant"),
        *("quant.modules", "workflow"),
    ),
    "search": (
        *("checkpoint", "data", "errors", "evaluation", "files", "graph", "models", "models.families", "passes"),
        *("policy", "sensitivity", "targets", "workflow"),
    ),
    "training": (
        *("checkpoint", "data", "errors", "evaluation", "files", "graph", "models", "models.family", "passes"),
        *("policy", "quant", "quant.modules", "runtime", "targets", "workflow"),
    ),
    "demo": ("errors", "files"),
    "api": ("checkpoint", "models", "passes", "sensitivity", "training", "workflow"),
    "report": (
        *("api", "checkpoint", "data", "errors", "evaluation", "files", "graph", "models", "models.families"),
        *("models.family", "passes", "policy", "runtime", "sensitivity", "targets", "training", "version"),
        *("workflow",),
    ),
    "fxqat": ("api", "checkpoint", "graph", "lazy", "policy", "quant", "quant.modules", "training", "version"),
    "commands": (
        *(
            "data",
            "demo",
            "errors",
            "evaluation",
            "files",
            "fxqat",
            "graph",
            "json_text",
            "models",
            "passes",
            "policy",
            "quant",
        ),
        *("report", "runtime", "runtime.onnx", "runtime.reference", "runtime.tflite", "search", "sensitivity"),
        *("targets", "training", "version", "workflow"),
    ),
    "cli": ("commands", "errors", "files", "models"),
}
# Public names, found on first use. They lead to rooms above their package's, so they are in the room "fxqat".
PUBLIC = ("fxqat", "fxqat.quant", "fxqat.training")
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
    "litert_torch": ("fxqat.runtime.tflite.litert_export",),
    "ai_edge_litert": ("fxqat.runtime.tflite.*", "fxqat.evaluation.litert_worker"),
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
    within = [one for one in ROOMS if under(name, (f"fxqat.{one}",))]
    return "fxqat" if not within or _module(name) in PUBLIC else max(within, key=len)


def _module(name: str) -> str | None:
    """The module that an imported ``name`` is, or stands in."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in MODULES), None)


MODULES = modules()
IMPORTS = {name: tuple(imports(file.read_text())) for name, file in MODULES.items()}


def test_every_module_is_in_a_room():
    assert [name for name in MODULES if room(name) == "fxqat" and name not in PUBLIC] == []


def test_no_room_holds_a_tenth_of_the_lines():
    lines = Counter[str]()
    for name, file in MODULES.items():
        lines[room(name)] += len(file.read_text().splitlines())
    assert [one for one, count in lines.items() if count >= lines.total() / 10] == []


def test_arrows_only_go_down():
    order = list(ROOMS)
    assert {(one, other) for one in ROOMS for other in ROOMS[one] if order.index(other) >= order.index(one)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_the_rooms_of_its_own(module):
    here = room(module)
    for name in IMPORTS[module]:
        if name.partition(".")[0] != "fxqat" or room(name) == here:
            continue
        assert room(name) in ROOMS[here], f"{here} may not import {name}"
        names = NAMES.get((here, room(name)))
        assert names is None or under(name, names), f"{here} may not import {name}"


def test_no_room_may_import_what_it_does_not():
    used = {(room(module), room(name)) for module, names in IMPORTS.items() for name in names}
    assert [(one, other) for one in ROOMS for other in ROOMS[one] if (one, other) not in used] == []


def test_no_module_leads_back_to_itself():
    """Imports inside functions count, and those for type checkers."""
    arrows = {name: {_module(one) for one in names} - {name, None} for name, names in IMPORTS.items()}
    list(TopologicalSorter(arrows).static_order())  # or CycleError, with the way


@pytest.mark.parametrize("library", DOORS)
def test_a_guarded_library_has_one_door(library):
    users = [name for name, names in IMPORTS.items() if any(under(one, (library,)) for one in names)]
    assert [name for name in users if not any(fnmatch(name, door) for door in DOORS[library])] == []


def test_the_table_would_notice_a_forbidden_import():
    assert list(imports("def f():\n    from fxqat.passes import fuse")) == ["fxqat.passes.fuse"]
    assert room("fxqat.passes.fuse") not in ROOMS[room("fxqat.graph.match")]
    assert room("fxqat.load") == "fxqat" not in ROOMS["training"], "the public names lead to everything"
    assert room("fxqat.quant.QATConv2d") == "fxqat", "and so do those of a package"
    assert room("fxqat.quant.modules.conv.QATConv2d") == "quant.modules"
    assert "models" not in ROOMS[room("fxqat.models.families.detect")]
    assert not under("fxqat.graph.site.module_of", NAMES["policy", "graph"])
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


# What only a family may say: heads, blocks and classes of a task by Ultralytics' names, modules that families bring
# along, tasks, and how the outputs of a head are laid out.
HEADS = {name for family in FAMILIES.values() for name in family.heads}
TASKS = {name.rpartition(".")[2] for one in FAMILIES.values() for name in (one.model, one.trainer, one.validator)}
BROUGHT = {kind.__name__ for kind in Opaque.__subclasses__() if kind.__module__.startswith("fxqat.models")}
CLASSES = "|".join(sorted({*head.__all__, *block.__all__, *REFUSED, *BLOCKS} | HEADS | TASKS | BROUGHT))
FAMILY_WORDS = re.compile(
    rf"\b({CLASSES}|(v8|E2E)\w*Loss|dfl|reg_max|one2one|one2many|n?kpts?|protos)\b|\b(kpt|one2one|one2many)_"
    rf"|\"({'|'.join(FAMILIES)}|proto|feats)\"|4 \+ nc|raw\[|\bmodel\.\d\d\b"
)
# The demo's signs hang at a pose, and a .tflite file holds anchors as constants, strides as parts of the image's size.
EXCUSED = {"fxqat.demo.scene": "Pose", "fxqat.runtime.tflite.litert_export": "AnchorGrid"}


def test_only_families_know_what_a_detection_is():
    rooms = [(name, file) for name, file in MODULES.items() if not fnmatch(name, "fxqat.models*")]
    told = [f"{name}: {word}" for name, file in rooms for word in family_words(file) if word != EXCUSED.get(name)]
    assert told == []
    assert [name for name, word in EXCUSED.items() if word not in family_words(MODULES[name])] == []


def family_words(file: Path) -> list[str]:
    return [found[0] for found in FAMILY_WORDS.finditer(file.read_text())]
