"""Constants in the arguments of a graph's nodes and modules as data of JSON, and back: a closed set of types."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Reference = Callable[[Any], Any]  # of a node's number, or of a node

_DTYPES = {
    str(one).removeprefix("torch."): one
    for one in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.uint16,
        torch.bool,
    )
}
_LAYOUTS = {
    str(one).removeprefix("torch."): one
    for one in (torch.contiguous_format, torch.channels_last, torch.preserve_format)
}
_PLAIN = (bool, int, str)
_DEEPEST = 16  # constants within constants; a graph of ours has 3


def encode(value: Any, number: Reference) -> Any:
    """``value`` as data of JSON.

    Args:
        value: None, a bool, int, float, str, dtype, memory format, slice, ``...``, a node, or a list, tuple or dict
            with words for keys of such.
        number: of a node; raises TypeError for anything that is none.

    Raises:
        TypeError: a type outside these.
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, list):
        return [encode(one, number) for one in value]
    if type(value) is tuple or isinstance(value, torch.Size):
        return {"tuple": [encode(one, number) for one in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(one, number) for key, one in value.items()}}
    if isinstance(value, slice):
        return {"slice": [encode(one, number) for one in (value.start, value.stop, value.step)]}
    return _encode_word(value, number)


def decode(data: Any, node: Reference, depth: int = 0) -> Any:
    """The value of ``data``.

    Args:
        data: as ``encode`` gave it.
        node: of its number; raises ValueError where there is none.
        depth: how many constants it stands in.

    Raises:
        ValueError: anything that ``encode`` does not give, or constants in constants without end.
    """
    if data is None or type(data) in _PLAIN or type(data) is float:
        return data
    if depth > _DEEPEST:
        raise ValueError("a constant stands in too many others")

    def inner(one: Any) -> Any:
        return decode(one, node, depth + 1)

    if isinstance(data, list):
        return [inner(one) for one in data]
    if isinstance(data, dict) and len(data) == 1:
        ((kind, content),) = data.items()
        if kind == "node":
            return node(content)
        if kind in _DECODERS:
            return _DECODERS[kind](content, inner)
    raise ValueError(f"{str(data)[:40]!r} is no constant of a graph")


def _encode_word(value: Any, number: Reference) -> Any:
    if isinstance(value, torch.dtype) and (name := str(value).removeprefix("torch.")) in _DTYPES:
        return {"dtype": name}
    if isinstance(value, torch.memory_format):
        return {"layout": str(value).removeprefix("torch.")}
    if value is ...:
        return {"ellipsis": True}
    return {"node": number(value)}


def _items(data: Any, inner: Reference) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"{str(data)[:40]!r} is no list")
    return [inner(one) for one in data]


def _float(data: Any, inner: Reference) -> float:
    if data not in {"nan", "inf", "-inf"}:
        raise ValueError(f"{str(data)[:40]!r} is no number")
    return float(data)


def _dict(data: Any, inner: Reference) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{str(data)[:40]!r} is no dict")
    return {key: inner(one) for key, one in data.items()}


def _slice(data: Any, inner: Reference) -> slice:
    start, stop, step = _items(data, inner)
    return slice(start, stop, step)


def _word(words: dict[str, Any]) -> Callable[[Any, Reference], Any]:
    def read(data: Any, inner: Reference) -> Any:
        if not isinstance(data, str) or data not in words:
            raise ValueError(f"{str(data)[:40]!r} is none of {', '.join(words)}")
        return words[data]

    return read


_DECODERS: dict[str, Callable[[Any, Reference], Any]] = {
    "tuple": lambda data, inner: tuple(_items(data, inner)),
    "dict": _dict,
    "float": _float,
    "slice": _slice,
    "dtype": _word(_DTYPES),
    "layout": _word(_LAYOUTS),
    "ellipsis": lambda data, inner: ...,
}
