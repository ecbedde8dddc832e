"""Groups of quantizers that a policy switches together: those of a site, or of a block of sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from fxqat.graph.info import info_of
from fxqat.passes.quant_graph import quant_info, rounded_site
from fxqat.passes.selective import members

GROUPS = ("site", "block")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A group of quantizers that is switched on or off together.

    Attributes:
        site: as a policy names it, or a block's prefix (``model.2``; within the head, one part more).
        nodes: names of its members: fake quantizers and layers with an integer weight.
        sites: the policy's sites in it.
    """

    site: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]


def units(gm: fx.GraphModule, group: str = "site") -> tuple[Unit, ...]:
    """The groups of a prepared graph, in the order of the computation.

    A tensor that shares its scale with others belongs to the site that computes it.
    """
    nodes: dict[str, list[str]] = {}
    sites: dict[str, list[str]] = {}
    for node in members(gm):
        site = decided(node)
        key = site if group == "site" else _block(site, info_of(node).roles)
        nodes.setdefault(key, []).append(node.name)
        if site not in sites.setdefault(key, []):
            sites[key].append(site)
    return tuple(Unit(site=key, nodes=tuple(names), sites=tuple(sites[key])) for key, names in nodes.items())


def decided(node: fx.Node) -> str:
    """The path of the site by whose policy rule ``node`` was decided."""
    decision = quant_info(node).decision
    return decision.site.path if decision is not None else rounded_site(node)


def _block(site: str, roles: Sequence[str]) -> str:
    parts = site.split(".")
    return ".".join(parts[: 3 if "head" in roles else 2])


def downstream(gm: fx.GraphModule, start: Sequence[str]) -> frozenset[str]:
    """The names in ``start``, and those of all nodes that depend on them."""
    reached = set(start)
    for node in gm.graph.nodes:
        if any(source.name in reached for source in node.all_input_nodes):
            reached.add(node.name)
    return frozenset(reached)
