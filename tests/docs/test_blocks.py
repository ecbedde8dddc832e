"""Every code block of the README and of docs/ runs as it stands: the blocks of a page in order, in one folder.

The folder holds a small detector and data set. A line that says in a comment that it takes minutes, or needs something
that may not be there, is only read: by the parser of the command line."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from docs.blocks import PAGES, REPOSITORY, Block, Line, blocks, command_lines

import fxqat.policy
from fxqat.cli import main
from fxqat.commands.parser import parser

NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
RUN = {"shell", "python", "yaml"}


@pytest.mark.usefixtures("quick_timing", "few_images", "registries")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_blocks_of_a_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look up the module of their class
    for block in blocks(page):
        if block.language == "python":
            run_python(block, module, folder)
        elif block.language == "yaml":
            run_yaml(block, folder)
        elif block.language == "shell":
            for line in command_lines(block):
                run_line(line)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_languages_are_known(page: Path) -> None:
    unknown = [one.where for one in blocks(page) if one.language not in RUN | {"text", "cpp"}]
    assert unknown == [], "a block of another language would not be run"


def run_python(block: Block, module: types.ModuleType, folder: Path) -> None:
    """The blocks of a page share their names; one that begins with ``# NAME.py`` is that file."""
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    first = block.text.split("\n", 1)[0]
    if first.startswith("# ") and first.endswith(".py"):
        (folder / first[2:]).write_text(block.text)
    elif block.is_run:
        exec(code, vars(module))


def run_yaml(block: Block, folder: Path) -> None:
    """A policy is read as one; a block that begins with ``# NAME.yaml`` is that file."""
    first = block.text.split("\n", 1)[0]
    if block.text.startswith("version:") or "\nversion:" in block.text:
        fxqat.policy.Policy.parse(block.text, block.where)
    if first.startswith("# ") and first.endswith(".yaml"):
        (folder / first[2:]).write_text(block.text)


def run_line(line: Line) -> None:
    """Run a command of ours; of others, see that it can be meant."""
    program, *rest = line.words
    RUNNERS.get(program, refuse)(rest, line)


def run_fxqat(rest: list[str], line: Line) -> None:
    """In this process; torch and Ultralytics take seconds to import. A command that another page has run after the same
    commands is not run again: the files that it wrote are copied."""
    if not line.is_run:
        parser().parse_args(rest)
        return
    history = (*HISTORY.pop(Path.cwd(), ()), *rest, "then")
    if history in WRITTEN:
        copy_missing(WRITTEN[history], Path())
    else:
        assert main(rest) == 0, line.where
        WRITTEN[history] = Path(shutil.copytree(".", f"{Path.cwd()}_{len(WRITTEN)}", symlinks=True))
    HISTORY[Path.cwd()] = history


def copy_missing(source: Path, folder: Path) -> None:
    """Copy what ``folder`` does not have yet."""
    for file in (one for one in source.rglob("*") if one.is_file()):
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(file, target)


def see_python(rest: list[str], line: Line) -> None:
    """``python -m bench.X``: the module is there and names each option."""
    assert rest[0] == "-m", line.where
    found = importlib.util.find_spec(rest[1])
    assert found is not None, line.where
    if rest[1].startswith("bench."):
        source = Path(str(found.origin)).read_text()
        missing = [word for word in rest if word.startswith("--") and f'"{word}"' not in source]
        assert missing in ([], ["--json"]), line.where


def see_make(rest: list[str], line: Line) -> None:
    """The target is in the Makefile."""
    rules = (REPOSITORY / "Makefile").read_text()
    assert [target for target in rest if "=" not in target and f"\n{target}:" not in rules] == [], line.where


def accept(rest: list[str], line: Line) -> None:
    """Nothing of ours to check."""


def refuse(rest: list[str], line: Line) -> None:
    """A program that nobody looks at would not be tested."""
    pytest.fail(f"{line.where}: no runner for {line.words[0]}")


WRITTEN: dict[tuple[str, ...], Path] = {}  # a copy of a page's folder after its first commands
HISTORY: dict[Path, tuple[str, ...]] = {}  # the commands that were run in a folder

RUNNERS: Mapping[str, Callable[[list[str], Line], None]] = {
    "fxqat": run_fxqat,
    "python": see_python,
    "make": see_make,
    **dict.fromkeys(("pip", "git", "cd", "yolo", "apt-get", "eval", "source", "g++", "export"), accept),
}
