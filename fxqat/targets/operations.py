"""Where the quantizer of an operation's output comes from, and the operations that models bring with them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Place(Enum):
    """Which quantizer the output of an operation has."""

    OWN = "own output quantizer"
    SAME = "same as its input"
    SHARED = "shared among its inputs"
    NONE = "float only"


# Modules of families: none is known to a runtime, so what they say of themselves holds for every target.
_REGISTERED: dict[str, Place] = {}


def register_operation(name: str, place: Place) -> None:
    """Let every target know the operation ``name``, a module's class.

    A target that has kernels for it says so in its own ``places``, which go first.

    Raises:
        ValueError: it is known with another place.
    """
    known = _REGISTERED.setdefault(name, place)
    if known is not place:
        raise ValueError(f"operation: {name!r} is known as {known.name}, and {place.name} differs")


def registered() -> Mapping[str, Place]:
    """The operations that models brought with them so far."""
    return _REGISTERED


__all__ = ["Place", "register_operation", "registered"]
