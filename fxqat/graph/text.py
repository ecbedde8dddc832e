"""The text of a graph: one stable line a node, values named by site. The same text serves goldens, diffs, errors and
reports."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from torch import fx

from fxqat.graph.site import module_of, operation, site_of

# What torch 2.14 says of a batch norm and torch 2.11 does not: it is the default, and no version changes a text.
_SAID_LATER = ", bias=True"


def text(graph: fx.Graph) -> str:
    """The whole graph, ending in a newline. Weights are not shown; what shapes the computation is.

    A line reads ``site = Operation(inputs) attributes``, for example ``model.0.conv = Conv2d(images) 3, 16,
    kernel_size=(3, 3)``.
    """
    return "".join(f"{line(node)}\n" for node in graph.nodes)


def line(node: fx.Node) -> str:
    """One node as one line."""
    if node.op == "placeholder":
        return f"{site_of(node)} = input"
    if node.op == "output":
        return f"return {_value(node.args[0])}"
    if node.op == "get_attr":
        return f"{site_of(node)} = attribute {node.target}"
    return f"{site_of(node)} = {operation(node)}({_arguments(node)}){_attributes(node)}"


def diff(before: str, after: str) -> str:
    """The lines that differ between two texts, with two lines of context, as a unified diff without file headers."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return "".join(f"{text}\n" for text in list(lines)[2:])


def _arguments(node: fx.Node) -> str:
    named = (f"{key}={_value(value)}" for key, value in node.kwargs.items() if value is not None)
    return ", ".join([*(_value(argument) for argument in node.args), *named])


def _attributes(node: fx.Node) -> str:
    words = module_of(node).extra_repr().replace(_SAID_LATER, "") if node.op == "call_module" else ""
    return f" {words}" if words else ""


def _value(value: Any) -> str:
    if isinstance(value, fx.Node):
        return site_of(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        left, right = ("[", "]") if isinstance(value, list) else ("(", ")")
        return left + ", ".join(_items(value)) + right
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _items(values: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    return (_value(value) for value in values)
