"""The code blocks of the README and of docs/, and what it takes to run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
# In a comment at the end of a line, or alone in the first line of a block: read, not run.
_NOT_RUN = re.compile(r"#.*\b(minutes|hours|needs)\b")
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        page: that it stands in.
        line: of its first line of text, from 1.
        language: ``shell``, ``python``, ``yaml``, ``cpp``; ``text`` is output and is not run.
        text: without the fence.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """``page:line``."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether its first line does not say that it takes minutes, or needs what is not at hand."""
        return not re.match(_NOT_RUN, self.text.lstrip())


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command line.

    Attributes:
        words: as the shell splits them.
        is_run: whether its comment does not say that it takes minutes, or needs what is not at hand.
        where: ``page:line``.
    """

    words: tuple[str, ...]
    is_run: bool
    where: str


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    content = page.read_text()
    for found in _FENCE.finditer(content):
        line = content.count("\n", 0, found.start()) + 2
        yield Block(page=page, line=line, language=found["language"], text=found["text"])


def command_lines(block: Block) -> Iterator[Line]:
    """The command lines of a shell block; a backslash at the end of a line continues it."""
    text = block.text.replace("\\\n", " ")
    for number, line in enumerate(text.splitlines()):
        if words := shlex.split(line, comments=True):
            is_run = block.is_run and not _NOT_RUN.search(line)
            yield Line(words=tuple(words), is_run=is_run, where=f"{block.page.name}:{block.line + number}")
