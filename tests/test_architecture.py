"""Who may import whom: rooms as globs of module names, read from the top, and what each may name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BASE = ("fxqat.errors", "fxqat.files")
# Pure functions on the words that sites and globs are; they touch no graph.
WORDS = (*BASE, "fxqat.graph.site.covers", "fxqat.graph.site.nearest", "fxqat.models.roles")
CORE = (*BASE, "fxqat.graph", "fxqat.quant")
MODELS = (*CORE, "fxqat.models", "fxqat.data")
PASSES = (*MODELS, "fxqat.policy", "fxqat.targets", "fxqat.passes")
RUNTIME = (*PASSES, "fxqat.runtime")
TRAINING = (*RUNTIME, "fxqat.checkpoint", "fxqat.evaluation", "fxqat.training")
TOOLS = (*TRAINING, "fxqat.sensitivity", "fxqat.search", "fxqat.demo", "fxqat.stage_checks", "fxqat.relower")
ROOMS = {
    "fxqat": (*PASSES, "fxqat.api"),
    "fxqat.errors": (),
    "fxqat.files": ("fxqat.errors",),
    "fxqat.graph.*": (*BASE, "fxqat.graph"),
    "fxqat.quant.*": (*BASE, "fxqat.quant"),
    "fxqat.targets.*": (*BASE, "fxqat.quant", "fxqat.targets"),
    "fxqat.policy.*": (*WORDS, "fxqat.policy", "fxqat.quant", "fxqat.targets"),
    "fxqat.models.*": (*CORE, "fxqat.models"),
    "fxqat.data.*": (*BASE, "fxqat.data", "fxqat.models"),
    "fxqat.demo.*": (*BASE, "fxqat.demo"),
    "fxqat.passes.*": PASSES,
    "fxqat.checkpoint.*": (*PASSES, "fxqat.checkpoint"),
    "fxqat.runtime.*": RUNTIME,
    "fxqat.stage_checks": MODELS,
    "fxqat.relower": (*PASSES, "fxqat.checkpoint", "fxqat.stage_checks"),
    "fxqat.training.*": TRAINING,
    # What they measure is whatever file the user names, so they call load().
    "fxqat.evaluation.*": (*RUNTIME, "fxqat.checkpoint", "fxqat.evaluation", "fxqat.sensitivity", "fxqat.api"),
    "fxqat.sensitivity.*": (*RUNTIME, "fxqat.evaluation", "fxqat.sensitivity"),
    "fxqat.search.*": (*RUNTIME, "fxqat.evaluation", "fxqat.sensitivity", "fxqat.search", "fxqat.api"),
    "fxqat.api": TOOLS,
    "fxqat.report.*": (*TOOLS, "fxqat.api", "fxqat.report"),
    "fxqat.commands.demo": (*TOOLS, "fxqat.api", "fxqat.commands", "fxqat.cli"),  # it types commands, as a user does
    "fxqat.commands.*": (*TOOLS, "fxqat.api", "fxqat.report", "fxqat.commands"),
    "fxqat.cli": (*TOOLS, "fxqat.api", "fxqat.commands"),
}
# Libraries that one door guards.
DOORS = {
    "torch.ao": ("fxqat.quant.torch_ao",),
    "ultralytics": (
        "fxqat.models.*",
        "fxqat.data.*",
        "fxqat.checkpoint.fxqat_format",  # for its version
        "fxqat.training.*",
        "fxqat.evaluation.validators",
    ),
    "litert_torch": ("fxqat.runtime.litert_export",),
    "ai_edge_litert": ("fxqat.runtime.tflite_file", "fxqat.runtime.litert_session"),
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


def room(module: str) -> tuple[str, ...]:
    """What ``module`` may import; a package's ``__init__`` belongs to its room."""
    found = [allowed for glob, allowed in ROOMS.items() if fnmatch(module, glob) or f"{module}.*" == glob]
    assert found, f"{module} is in no room of the table"
    return found[0]


@pytest.mark.parametrize("module", modules())
def test_imports_only_go_down(module):
    # `import fxqat` alone gives the version; its public names are found on first use.
    named = [name for name in imports(modules()[module].read_text()) if name.startswith("fxqat.")]
    assert [name for name in named if not under(name, room(module))] == []


@pytest.mark.parametrize("library", DOORS)
def test_a_guarded_library_has_one_door(library):
    users = [name for name, file in modules().items() if any(under(i, (library,)) for i in imports(file.read_text()))]
    assert [name for name in users if not any(fnmatch(name, door) for door in DOORS[library])] == []


def test_the_table_would_notice_a_forbidden_import():
    assert list(imports("def f():\n    from fxqat.passes import fuse")) == ["fxqat.passes.fuse"]
    assert not under("fxqat.passes.fuse", room("fxqat.graph.match"))
    assert not under("fxqat.graph.site.module_of", room("fxqat.policy"))
    assert under("fxqat.graph.site.covers", room("fxqat.policy"))


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
