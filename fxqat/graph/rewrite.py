"""Rewriting: a rule is a value, its pattern above and its rewrite below, with the pattern's names as parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from fxqat.graph.info import info_of, set_info
from fxqat.graph.match import Match, NoMatch, Pattern, match
from fxqat.graph.prune import drop_unused_modules
from fxqat.graph.site import Sites, site_of

Rewrite = Callable[..., fx.Node]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A pattern and what to put in its place. Made by ``@rule``."""

    name: str
    pattern: Pattern
    rewrite: Rewrite
    doc: str
    source: str

    def apply(self, gm: fx.GraphModule, node: fx.Node, sites: Sites | None = None) -> fx.Node:
        """Rewrite the match that ends at ``node``; return the node that took its place.

        Args:
            gm: the graph.
            node: the last of the match.
            sites: those of ``gm``, where they are known.

        Raises:
            NoMatch: the pattern does not fit there, or the rule refused; the graph is as before.
        """
        found = match(self.pattern, node)
        edit = Edit(gm=gm, rule=self, found=found, sites=sites or Sites(gm.graph))
        try:
            result = self.rewrite(edit, **_arguments(self.rewrite, found))
        except NoMatch as miss:
            miss.depth = max(miss.depth, len(found.inside))
            edit.undo()
            raise
        edit.replace(result)
        return result


def rule(pattern: Pattern) -> Callable[[Rewrite], Rule]:
    """Decorate ``def name(edit, **nodes_by_pattern_name)``; it returns the new node, or raises NoMatch to refuse."""

    def made(rewrite: Rewrite) -> Rule:
        code = rewrite.__code__
        where = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
        doc = inspect.cleandoc(rewrite.__doc__ or "")
        return Rule(name=rewrite.__name__, pattern=pattern, rewrite=rewrite, doc=doc, source=where)

    return made


class Edit:
    """What a rule may do to the graph: add nodes after the match's root. Matched nodes that nothing uses any more leave
    when it returns."""

    def __init__(self, *, gm: fx.GraphModule, rule: Rule, found: Match, sites: Sites) -> None:
        self.gm, self.rule, self.found, self.sites = gm, rule, found, sites
        self.added: list[fx.Node] = []
        self.wanted: dict[fx.Node, str] = {}  # sites, where a node of the match may still be in the way
        self.undoing: list[Callable[[], object]] = []

    def call(self, module: nn.Module, *args: Any, at: fx.Node | str) -> fx.Node:
        """Add a call of ``module``, placed at the site (or the site of the node) ``at``; the module is stored under
        that path."""
        site = at if isinstance(at, str) else site_of(at)
        self._store(site, module)
        return self._placed(site, lambda graph: graph.call_module(site, args), at)

    def function(self, target: Callable[..., Any], *args: Any, at: fx.Node | str, **kwargs: Any) -> fx.Node:
        """Add a call of a function at the site ``at``."""
        site = at if isinstance(at, str) else site_of(at)
        return self._placed(site, lambda graph: graph.call_function(target, args, kwargs), at)

    def attribute(self, name: str, tensor: torch.Tensor) -> fx.Node:
        """Register ``tensor`` as a buffer at the dotted path ``name`` and add the node that reads it."""
        folder, _, leaf = name.rpartition(".")
        if not _has(self.gm, folder):
            self._store(folder, nn.Module())
        place = self.gm.get_submodule(folder)
        place.register_buffer(leaf, tensor)
        self.undoing.append(lambda: delattr(place, leaf))
        return self._placed(name, lambda graph: graph.get_attr(name), name)

    def tensor(self, node: fx.Node) -> torch.Tensor:
        """The tensor that a ``get_attr`` node reads."""
        folder, _, leaf = str(node.target).rpartition(".")
        return getattr(self.gm.get_submodule(folder), leaf)

    def replace(self, result: fx.Node) -> None:
        """Let ``result`` take the root's place and remove what the match leaves unused."""
        root = self.found.root
        if result is not root:
            inner = set(self.added)
            root.replace_all_uses_with(result, delete_user_cb=lambda user: user not in inner)
        for node in reversed(self.found.inside):
            if not node.users and node is not result and node.op != "output":
                self.gm.graph.erase_node(node)
        self._drop_site_suffixes()

    def undo(self) -> None:
        """Remove what a refusing rule had already added, and put back what it displaced."""
        for node in reversed(self.added):
            self.gm.graph.erase_node(node)
        for one in reversed(self.undoing):
            one()

    def _store(self, path: str, module: nn.Module) -> None:
        """Put ``module`` at ``path``; what nodes call below that path stays there."""
        if _has(self.gm, path):
            old = self.gm.get_submodule(path)
            self.undoing.append(partial(self.gm.add_submodule, path, old))
            for name in self._called_below(path) - module._modules.keys():
                module.add_module(name, old.get_submodule(name))
        else:
            self.undoing.append(partial(self.gm.delete_submodule, path))
        self.gm.add_submodule(path, module)

    def _called_below(self, path: str) -> set[str]:
        """Names of modules right below ``path`` that a node calls, or that hold one."""
        targets = (str(node.target) for node in self.gm.graph.nodes if node.op == "call_module")
        inner = (target.removeprefix(f"{path}.") for target in targets if target.startswith(f"{path}."))
        return {name.partition(".")[0] for name in inner}

    def _placed(self, site: str, make: Callable[[fx.Graph], fx.Node], at: fx.Node | str) -> fx.Node:
        root = self.found.root
        with self.gm.graph.inserting_after(self.added[-1] if self.added else root):
            node = make(self.gm.graph)
        origin = at if isinstance(at, fx.Node) else root
        node.meta.update(origin.meta)
        set_info(node, info_of(origin).handed_on(self.rule.name))
        self.sites.set_site(node, site)
        self.added.append(node)
        self.wanted[node] = site
        return node

    def _drop_site_suffixes(self) -> None:
        """A new node whose site was still taken by a node of the match gets it now."""
        for node in self.added:
            if site_of(node) != self.wanted[node]:
                self.sites.set_site(node, self.wanted[node])


@dataclass(frozen=True, kw_only=True)
class RuleMatch:
    """A rule that fired, and the site of the node that it put in."""

    rule: str
    site: str


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """A rule that nearly fired at ``site``: at least its last operation fitted; ``where`` is the node that did not."""

    rule: str
    site: str
    where: str
    reason: str
    depth: int


@dataclass(frozen=True, kw_only=True)
class Rewrites:
    """What a list of rules did to a graph."""

    applied: tuple[RuleMatch, ...]
    missed: tuple[NearMiss, ...]

    def count(self, rule: str) -> int:
        """How often ``rule`` fired."""
        return sum(one.rule == rule for one in self.applied)


def rewrite(gm: fx.GraphModule, rules: Sequence[Rule]) -> Rewrites:
    """Apply ``rules`` in the order of the list, each in one sweep along the data flow, in place."""
    applied: list[RuleMatch] = []
    missed: list[NearMiss] = []
    sites = Sites(gm.graph)
    for one in rules:
        for node in list(gm.graph.nodes):
            _try(gm, one, node, sites, applied, missed)
    gm.graph.lint()
    drop_unused_modules(gm)
    gm.recompile()
    return Rewrites(applied=tuple(applied), missed=tuple(missed))


def _try(
    gm: fx.GraphModule, rule: Rule, node: fx.Node, sites: Sites, applied: list[RuleMatch], missed: list[NearMiss]
) -> None:
    if node._erased:
        return
    site = site_of(node)
    try:
        result = rule.apply(gm, node, sites)
    except NoMatch as miss:
        if miss.depth:
            missed.append(
                NearMiss(rule=rule.name, site=site, where=site_of(miss.node), reason=miss.reason, depth=miss.depth)
            )
    else:
        applied.append(RuleMatch(rule=rule.name, site=site_of(result)))


def _arguments(rewrite: Rewrite, found: Match) -> dict[str, fx.Node]:
    wanted = list(inspect.signature(rewrite).parameters)[1:]
    return {name: found[name] for name in wanted}


def _has(gm: fx.GraphModule, path: str) -> bool:
    try:
        gm.get_submodule(path)
    except AttributeError:
        return False
    return True
