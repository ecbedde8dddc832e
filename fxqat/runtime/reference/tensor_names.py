"""The names of codes in exported files: a site, ``model.0.conv``, and what follows it."""

from __future__ import annotations

CODES = ".codes"
# What a name of codes ends in where the file holds them in another order of axes; the order follows.
PERMUTED = ".permuted."


def permuted(name: str, order: tuple[int, ...]) -> str:
    """``name`` for a tensor whose axis i in the file is axis ``order[i]`` of the graph's."""
    return name if order == tuple(sorted(order)) else f"{name}{PERMUTED}{'.'.join(map(str, order))}"


def back(name: str, rank: int) -> tuple[str, tuple[int, ...]]:
    """The name without its order, and the order that takes the file's axes back to the graph's.

    What does not end in an order of axes is a name like any other, of a tensor with ``rank`` axes in order.
    """
    known, _, held = name.partition(PERMUTED)
    order = [int(axis) if axis.isdecimal() else -1 for axis in held.split(".")]
    if sorted(order) != list(range(len(order))):
        return name, tuple(range(rank))
    return known, tuple(sorted(range(len(order)), key=order.__getitem__))
