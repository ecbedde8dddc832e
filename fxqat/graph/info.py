"""Typed metadata of a node in ``node.meta``, which rewrites hand on to the nodes that they insert."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # names and notes need no torch to run
    from torch import fx

KEY = "fxqat"


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """The note of a node; a subclass may know more.

    Attributes:
        site: where in the source model the node comes from; empty where nobody said.
        roles: the parts it plays in the network, in a policy's words.
        rule: the rule that put it in, or empty for a node of the trace.
    """

    site: str = ""
    roles: tuple[str, ...] = ()
    rule: str = ""

    def handed_on(self, rule: str) -> Self:
        """The note of a node that ``rule`` puts in this one's place, not yet at a site."""
        return replace(self, site="", rule=rule)


_NOTHING = NodeInfo()


def info_of(node: fx.Node) -> NodeInfo:
    """The note of ``node``, an empty one where it has none."""
    info: NodeInfo = node.meta.get(KEY, _NOTHING)
    return info


def set_info(node: fx.Node, info: NodeInfo) -> None:
    """Give ``node`` the note ``info`` in place of its own."""
    node.meta[KEY] = info


def note(node: fx.Node, **changes: Any) -> None:
    """Change fields of the note of ``node``."""
    set_info(node, replace(info_of(node), **changes))
