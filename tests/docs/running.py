"""Running the code blocks of a page as they stand, in order, in one folder; what came of it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from docs.blocks import PAGES, REPOSITORY, Block, Line, blocks, command_lines

import fxqat.policy
from fxqat.cli import main
from fxqat.commands.parser import parser

RUN = {"shell", "python", "yaml"}
_OWN = re.compile(r"\S*[\d./]\S*")  # a number, a file, a site: another model's are others


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that was run.

    Attributes:
        where: ``page:line``.
        code: its exit code.
        printed: on its standard output.
        unwritten: files named by ``-o`` that are not there.
    """

    where: str
    code: int
    printed: str
    unwritten: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The output that a page shows below its commands: words of it, numbers and names apart, and what was printed."""

    where: str
    words: frozenset[str]
    printed: frozenset[str]


def wording(output: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z]{3,}", _OWN.sub(" ", output)))


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Ran], list[Shown]]:
    """Run every block of ``page``; Python raises what is wrong with it."""
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look up the module of their class
    ran: list[Ran] = []
    shown: list[Shown] = []
    latest: list[Ran] = []
    for block in blocks(page):
        if block.language == "text" and latest:
            printed = "".join(one.printed for one in latest)
            shown.append(Shown(where=block.where, words=wording(block.text), printed=wording(printed)))
        done = run_block(block, module, folder)
        ran += done
        latest = done if is_run_whole(block) else []
    return ran, shown


class BlocksRun:
    """What is checked of each page that the fixture ``page`` gives; a file inherits it for some of the pages."""

    @pytest.mark.usefixtures("quick_timing", "few_images", "few_resamples", "registries")
    def test_the_blocks_of_a_page_run(self, page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ran, shown = run_page(page, folder, monkeypatch)
        assert {one.where: one.code for one in ran if one.code != 0} == {}
        assert {one.where: one.unwritten for one in ran if one.unwritten} == {}
        assert {one.where: one.words - one.printed for one in shown if one.words - one.printed} == {}


def pages(how_to: bool) -> list[Path]:
    """The pages with blocks to run: those of the how-tos, or the others."""
    mine = [page for page in PAGES if (page.parent.name == "how-to") == how_to]
    return [page for page in mine if any(one.language in RUN for one in blocks(page))]


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def is_run_whole(block: Block) -> bool:
    """Whether the last command of a block is run, which the output below it is of."""
    return block.language == "shell" and [line.is_run for line in command_lines(block)][-1:] == [True]


def run_block(block: Block, module: types.ModuleType, folder: Path) -> list[Ran]:
    """Run a block; the commands of ours in it."""
    if block.language == "python":
        run_python(block, module, folder)
    elif block.language == "yaml":
        run_yaml(block, folder)
    elif block.language == "shell":
        return [one for line in command_lines(block) for one in run_line(line)]
    return []


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


def run_line(line: Line) -> list[Ran]:
    """Run a command of ours; of others, see that it can be meant."""
    program, *rest = line.words
    return RUNNERS.get(program, refuse)(rest, line)


def run_fxqat(rest: list[str], line: Line) -> list[Ran]:
    """In this process; torch and Ultralytics take seconds to import. A command that another page has run after the same
    commands is not run again: the files that it wrote are copied."""
    if not line.is_run:
        parser().parse_args(rest)
        return []
    history = (*HISTORY.pop(Path.cwd(), ()), *rest, "then")
    if history in WRITTEN:
        copy_missing(WRITTEN[history].folder, Path())
    else:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(rest)
        copy = Path(shutil.copytree(".", f"{Path.cwd()}_{len(WRITTEN)}", symlinks=True))
        WRITTEN[history] = Written(folder=copy, code=code, printed=printed.getvalue())
    HISTORY[Path.cwd()] = history
    files = [file for option, file in pairwise(rest) if option == "-o" and not Path(file).exists()]
    done = WRITTEN[history]
    return [Ran(where=line.where, code=done.code, printed=done.printed, unwritten=tuple(files))]


def copy_missing(source: Path, folder: Path) -> None:
    """Copy what ``folder`` does not have yet."""
    for file in (one for one in source.rglob("*") if one.is_file()):
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(file, target)


def see_python(rest: list[str], line: Line) -> list[Ran]:
    """``python -m bench.X``: the module is there and names each option."""
    assert rest[0] == "-m", line.where
    found = importlib.util.find_spec(rest[1])
    assert found is not None, line.where
    if rest[1].startswith("bench."):
        source = Path(str(found.origin)).read_text()
        missing = [word for word in rest if word.startswith("--") and f'"{word}"' not in source]
        assert missing in ([], ["--json"]), line.where
    return []


def see_make(rest: list[str], line: Line) -> list[Ran]:
    """The target is in the Makefile."""
    rules = (REPOSITORY / "Makefile").read_text()
    assert [target for target in rest if "=" not in target and f"\n{target}:" not in rules] == [], line.where
    return []


def accept(rest: list[str], line: Line) -> list[Ran]:
    """Nothing of ours to check."""
    return []


def refuse(rest: list[str], line: Line) -> list[Ran]:
    """A program that nobody looks at would not be tested."""
    pytest.fail(f"{line.where}: no runner for {line.words[0]}")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What came of a page's first commands: a copy of its folder, and of the last one its exit code and its output."""

    folder: Path
    code: int
    printed: str


WRITTEN: dict[tuple[str, ...], Written] = {}
HISTORY: dict[Path, tuple[str, ...]] = {}  # the commands that were run in a folder

RUNNERS: Mapping[str, Callable[[list[str], Line], list[Ran]]] = {
    "fxqat": run_fxqat,
    "python": see_python,
    "make": see_make,
    **dict.fromkeys(("pip", "git", "cd", "yolo", "apt-get", "eval", "source", "g++", "export"), accept),
}
