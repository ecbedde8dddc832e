"""A unified diff line by line, each with the kind it is: the sign stays in the text, colour only repeats it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fxqat.models.detector import PassRecord

KINDS = {"+": "ins", "-": "del", "@": "hunk"}
MOST = 600  # lines shown of one pass; the rest is counted


@dataclass(frozen=True, kw_only=True)
class PassDiff:
    """What one pass did.

    Attributes:
        name: of the pass.
        says: its own words.
        milliseconds: it took.
        added: lines of the graph's text.
        removed: lines of the graph's text.
        lines: (kind, text) of the diff, at most ``MOST``; kind is ins, del, hunk or same.
        left_out: how many more there are.
    """

    name: str
    says: str
    milliseconds: float
    added: int
    removed: int
    lines: tuple[tuple[str, str], ...]
    left_out: int


def changed(done: PassRecord) -> PassDiff:
    """A pass as it ran, ready to be shown."""
    lines = list(_lines(done.diff))
    return PassDiff(
        name=done.name,
        says=done.says,
        milliseconds=done.milliseconds,
        added=sum(kind == "ins" for kind, _ in lines),
        removed=sum(kind == "del" for kind, _ in lines),
        lines=tuple(lines[:MOST]),
        left_out=max(0, len(lines) - MOST),
    )


def _lines(diff: str) -> Iterator[tuple[str, str]]:
    for line in diff.splitlines():
        yield KINDS.get(line[:1], "same"), line
