"""Sites: where in the source model a node comes from.

A site is a dotted path such as ``model.2.m.0.cv1.conv`` for a module or ``model.2.m.0.add`` for an operation between
modules. It is a node's identity: unique in a graph, the same for every trace of the same model, and untouched by
passes. Targets cannot serve: in YOLOv8 one ``nn.SiLU`` instance stands behind all 57 activations.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fxqat.graph.info import KEY, info_of, note

if TYPE_CHECKING:  # globs and names, which policies and the command line use, need no torch to run
    from torch import fx


def site_of(node: fx.Node) -> str:
    """The site of ``node``, or its name where a user's own pass gave it none."""
    return info_of(node).site or node.name


class Sites:
    """The nodes of a graph by their sites, for those who place many: a scan for each would take a fifth of a pipeline.

    Nodes may be erased meanwhile; sites are given by ``set_site`` alone.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._nodes: dict[object, fx.Node] = {node.meta[KEY].site: node for node in graph.nodes if KEY in node.meta}

    def __contains__(self, site: object) -> bool:
        node = self._nodes.get(site)
        return node is not None and not node._erased and info_of(node).site == site

    def set_site(self, node: fx.Node, site: str) -> fx.Node:
        """Give ``node`` the first free site among ``site``, ``site_1``, ``site_2`` ... and return it."""
        if self._nodes.get(own := info_of(node).site) is node:
            del self._nodes[own]
        note(node, site=first_free(site, self))
        self._nodes[info_of(node).site] = node
        return node


def set_site(node: fx.Node, site: str) -> fx.Node:
    """``Sites.set_site`` of one node."""
    return Sites(node.graph).set_site(node, site)


def first_free(site: str, taken: Container[object]) -> str:
    """``site`` if it is not in ``taken``, else the first of ``site_1``, ``site_2`` ... that is not."""
    candidate, count = site, 0
    while candidate in taken:
        count += 1
        candidate = f"{site}_{count}"
    return candidate


def assign_sites(graph: fx.Graph) -> None:
    """Name every node of a fresh trace by the innermost module it ran in and, for an operation, the operation."""
    taken: set[str] = set()
    for node in graph.nodes:
        site = first_free(_source_site(node), taken)
        note(node, site=site)
        taken.add(site)


def module_of(node: fx.Node) -> Any:
    """The module that a ``call_module`` node calls; untyped, since its class is what a pattern has established."""
    owner = node.graph.owning_module
    if owner is None or node.op != "call_module":
        raise TypeError(f"{site_of(node)} is a {node.op} node, not a call of a module")
    return _submodule(owner, str(node.target))


def _submodule(owner: Any, path: str) -> Any:
    """``owner.get_submodule(path)``, in an eighth of its time: passes ask for every module again and again."""
    module = owner
    for part in path.split("."):
        if (module := module._modules.get(part)) is None:
            return owner.get_submodule(path)  # whose error names what is missing
    return module


def operation(node: fx.Node) -> str:
    """The word for what a node does: a module's class, or a function's or method's name."""
    if node.op == "call_module":
        return type(module_of(node)).__name__
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target)).split(".")[0]
    return str(node.target) if node.op == "call_method" else node.op


def covers(glob: str, site: str) -> bool:
    """Whether ``glob`` covers the whole of ``site``: ``*`` within a part, ``**`` across parts, ``?``, ``[ab]`` and
    ``[!ab]`` as in a shell.

    Raises:
        re.error: a range of characters that runs backwards.
    """
    return _compiled(glob).fullmatch(site) is not None


def nearest(name: str, names: Iterable[str]) -> str:
    """A "did you mean" clause for ``name``, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def _source_site(node: fx.Node) -> str:
    if node.op in {"placeholder", "output"}:
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}))
    scope = stack[-1].split("@")[0] if stack else ""
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target)
    if node.target is operator.getitem and node.args[0] in node.all_input_nodes:
        return f"{info_of(node.all_input_nodes[0]).site}.{node.args[1]}"
    return f"{scope}.{operation(node)}" if scope else operation(node)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", glob)
    wild = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return re.compile("".join(wild.get(p) or _characters(p) or re.escape(p) for p in pieces))


def _characters(piece: str) -> str:
    """A set in brackets as a regular expression, or nothing; the opposite of a set stays within a part as well."""
    if piece[:1] != "[" or piece[-1:] != "]":
        return ""
    inside = piece[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
    return f"[^{inside[1:]}.]" if inside.startswith("!") else f"[{inside}]"
