"""Patterns over FX graphs: what a subgraph looks like, read along the data flow, and one way to say no.

Example:
    x = value("x")
    conv = module(nn.Conv2d, x, name="conv")
    act = module(nn.SiLU, conv, name="act")
    match(act, node)["conv"]  # the convolution's node, or NoMatch(reason, node)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from fxqat.graph.site import module_of, operation, site_of


class NoMatch(Exception):
    """Why a pattern does not fit, and at which node: the only way that matchers and rules refuse."""

    def __init__(self, reason: str, node: fx.Node) -> None:
        self.reason, self.node, self.depth = reason, node, 0
        super().__init__(f"{site_of(node)}: {reason}")


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One node of a pattern: what it accepts, and the patterns of its inputs in argument order.

    ``inputs=None`` leaves the inputs open. A node that is neither the root nor a ``value`` must have no user outside
    the match.
    """

    describes: str
    accepts: Callable[[fx.Node], bool]
    inputs: tuple[Pattern, ...] | None = None
    name: str | None = None
    choices: tuple[Pattern, ...] = ()
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class Match:
    """A pattern found: its root, the named nodes, and every node inside it (root last)."""

    root: fx.Node
    named: Mapping[str, fx.Node]
    inside: tuple[fx.Node, ...]

    def __getitem__(self, name: str) -> fx.Node:
        return self.named[name]


@dataclass
class _Found:
    named: dict[str, fx.Node] = field(default_factory=dict)
    inside: list[fx.Node] = field(default_factory=list)

    def bind(self, name: str | None, node: fx.Node) -> None:
        if name is None:
            return
        if self.named.setdefault(name, node) is not node:
            raise NoMatch(f"{name!r} is {site_of(self.named[name])} elsewhere in the pattern", node)


def value(name: str | None = None) -> Pattern:
    """Any value at all: the edge of a pattern."""
    return Pattern(describes="any value", accepts=lambda node: True, name=name, open=True)


def module(kind: type[nn.Module] | tuple[type[nn.Module], ...], *inputs: Pattern, name: str | None = None) -> Pattern:
    """A call of a module of class ``kind`` (or a subclass), found by class, never by path."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return Pattern(
        describes=" or ".join(k.__name__ for k in kinds),
        accepts=lambda node: node.op == "call_module" and isinstance(module_of(node), kinds),
        inputs=inputs or None,
        name=name,
    )


def function(
    target: Callable[..., Any] | tuple[Callable[..., Any], ...], *inputs: Pattern, name: str | None = None
) -> Pattern:
    """A call of a function, such as ``torch.cat`` or ``operator.add``."""
    targets = target if isinstance(target, tuple) else (target,)
    return Pattern(
        describes=" or ".join(str(getattr(t, "__name__", t)) for t in targets),
        accepts=lambda node: node.op == "call_function" and node.target in targets,
        inputs=inputs or None,
        name=name,
    )


def method(target: str, *inputs: Pattern, name: str | None = None) -> Pattern:
    """A call of a tensor method, such as ``chunk``."""
    return Pattern(
        describes=f".{target}()",
        accepts=lambda node: node.op == "call_method" and node.target == target,
        inputs=inputs or None,
        name=name,
    )


def one_of(*choices: Pattern, name: str | None = None) -> Pattern:
    """The first of several patterns that fits."""
    words = " or ".join(choice.describes for choice in choices)
    return Pattern(
        describes=words, accepts=lambda node: any(c.accepts(node) for c in choices), name=name, choices=choices
    )


def match(pattern: Pattern, root: fx.Node) -> Match:
    """Fit ``pattern`` with its last operation at ``root``.

    Raises:
        NoMatch: with the reason, the node it stands at, and ``depth``, the count of nodes that did fit before it.
    """
    found = _Found()
    try:
        _fit(pattern, root, found)
        _check_private(found.inside, root)
    except NoMatch as miss:
        miss.depth = max(miss.depth, len(found.inside))
        raise
    return Match(root=root, named=found.named, inside=tuple(reversed(found.inside)))


def fits(pattern: Pattern, root: fx.Node) -> bool:
    """Whether the operations of ``pattern`` end at ``root``, whoever else uses their values: for promises, by which
    nothing is rewritten."""
    try:
        _fit(pattern, root, _Found())
    except NoMatch:
        return False
    return True


def _fit(pattern: Pattern, node: fx.Node, found: _Found) -> None:
    if not pattern.accepts(node):
        raise NoMatch(f"is {operation(node)}, not {pattern.describes}", node)
    found.bind(pattern.name, node)
    if pattern.choices:
        _fit_choice(pattern.choices, node, found)
        return
    if pattern.open:
        return
    if node not in found.inside:
        found.inside.append(node)
    if pattern.inputs is not None:
        _fit_inputs(pattern.inputs, node, found)


def _fit_choice(choices: tuple[Pattern, ...], node: fx.Node, found: _Found) -> None:
    misses: list[NoMatch] = []
    for choice in choices:
        trial = _Found(dict(found.named), list(found.inside))
        try:
            _fit(choice, node, trial)
        except NoMatch as miss:
            miss.depth = len(trial.inside)
            misses.append(miss)
            continue
        found.named, found.inside = trial.named, trial.inside
        return
    raise max(misses, key=lambda miss: miss.depth)


def _fit_inputs(inputs: tuple[Pattern, ...], node: fx.Node, found: _Found) -> None:
    given = [argument for argument in (*node.args, *node.kwargs.values()) if isinstance(argument, fx.Node)]
    if len(given) != len(inputs):
        raise NoMatch(f"has {len(given)} inputs, the pattern has {len(inputs)}", node)
    for inner, argument in zip(inputs, given, strict=True):
        _fit(inner, argument, found)


def _check_private(inside: list[fx.Node], root: fx.Node) -> None:
    for node in inside:
        outside = [user for user in node.users if user not in inside]
        if node is not root and outside:
            raise NoMatch(f"is also used by {site_of(outside[0])}", node)
