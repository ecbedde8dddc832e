"""What a policy decides as one: a site with everything that is rounded there, or a block of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from fxqat.graph.info import info_of
from fxqat.passes.quant_graph import quant_info, rounded_site
from fxqat.sensitivity.selective import members

GROUPS = ("site", "block")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One thing to switch.

    Attributes:
        site: as a policy names it, or a block's prefix (``model.2``; within the head, one part more).
        nodes: names of its members: fake quantizers and layers with an integer weight.
        sites: the policy's sites in it.
    """

    site: str
    nodes: tuple[str, ...]
    sites: tuple[str, ...]


def units(gm: fx.GraphModule, group: str = "site") -> tuple[Unit, ...]:
    """Every unit of a prepared graph, in the order of the computation.

    A tensor that a Concat joins to others of one scale belongs to the site that computes it.
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
    """The site whose line of the policy decided ``node``."""
    decision = quant_info(node).decision
    return decision.site.path if decision is not None else rounded_site(node)


def _block(site: str, roles: Sequence[str]) -> str:
    parts = site.split(".")
    return ".".join(parts[: 3 if "head" in roles else 2])


def downstream(gm: fx.GraphModule, start: Sequence[str]) -> frozenset[str]:
    """Names of the nodes called ``start`` and all that depend on them."""
    reached = set(start)
    for node in gm.graph.nodes:
        if any(source.name in reached for source in node.all_input_nodes):
            reached.add(node.name)
    return frozenset(reached)
