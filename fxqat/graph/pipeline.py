"""Pipelines: passes in a visible order; each is linted, its promise checked, its difference kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import fx

from fxqat.errors import Problem
from fxqat.graph.match import Pattern, fits
from fxqat.graph.rewrite import Missed, Rewrites
from fxqat.graph.site import site_of
from fxqat.graph.text import diff, line, text


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One thing that holds after a pass: ``broken(gm)`` yields a (node, reason) for every place where it does not."""

    says: str
    broken: Callable[[fx.GraphModule], Iterator[tuple[fx.Node, str]]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A state of the graph that has a name: what must hold in it."""

    name: str
    promises: tuple[Promise, ...] = ()

    def check(self, gm: fx.GraphModule, pass_name: str) -> None:
        """Raise BrokenPromise at the first node where a promise does not hold."""
        for promise in self.promises:
            for node, reason in promise.broken(gm):
                raise BrokenPromise(pass_name, self, promise, node, reason)


class BrokenPromise(Problem):
    """A pass left the graph in a state that it promised not to: a defect of the pass, shipped or the user's own."""

    def __init__(self, pass_name: str, stage: Stage, promise: Promise, node: fx.Node, reason: str) -> None:
        super().__init__(
            f"pass {pass_name} at {site_of(node)}",
            f"{reason} [{line(node)}]",
            expected=f"the stage {stage.name}: {promise.says}",
            remedy="mend the pass, or take it out of the pipeline",
        )


def never(pattern: Pattern, says: str) -> Promise:
    """The promise that ``pattern`` fits nowhere, also where an inner value has other users."""

    def broken(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
        for node in gm.graph.nodes:
            if fits(pattern, node):
                yield node, f"is still {pattern.describes}"

    return Promise(says=says, broken=broken)


@dataclass(frozen=True, kw_only=True)
class PassReport:
    """What a pass has to say for itself: a line of words, rules that fired or nearly did, and figures."""

    says: str = ""
    rewrites: Rewrites = field(default_factory=lambda: Rewrites(applied=(), missed=()))
    figures: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Pass(Protocol):
    """A change to a graph, in place. In practice a frozen dataclass: its fields are its options."""

    @property
    def name(self) -> str:
        """A verb."""

    @property
    def gives(self) -> Stage | None:
        """The stage that holds afterwards, checked each time."""

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Change ``gm`` in place."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass as it ran."""

    name: str
    seconds: float
    before: str
    after: str
    report: PassReport

    @property
    def diff(self) -> str:
        """What the pass changed, as text; empty if nothing."""
        return diff(self.before, self.after)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A pipeline as it ran, pass by pass."""

    steps: tuple[Step, ...]

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def __add__(self, other: Report) -> Report:
        return Report(steps=self.steps + other.steps)

    @property
    def seconds(self) -> float:
        """Wall time of all passes, their checks included."""
        return sum(step.seconds for step in self.steps)

    @property
    def missed(self) -> tuple[Missed, ...]:
        """Every rule that nearly fired, deepest match first."""
        misses = [miss for step in self.steps for miss in step.report.rewrites.missed]
        return tuple(sorted(misses, key=lambda miss: -miss.depth))

    def __str__(self) -> str:
        return "".join(f"{step.name:<14} {step.seconds * 1e3:7.1f} ms  {step.report.says}\n" for step in self.steps)


@dataclass(frozen=True)
class Pipeline:
    """Passes in order."""

    passes: Sequence[Pass]

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, Report]:
        """Run every pass on one copy of ``gm``, which stays as it is.

        Raises:
            BrokenPromise: a pass did not keep the promise of the stage it gives.
        """
        gm = copy.deepcopy(gm)
        return gm, Report(steps=tuple(_step(one, gm) for one in self.passes))


def _step(one: Pass, gm: fx.GraphModule) -> Step:
    start, before = time.perf_counter(), text(gm.graph)
    report = one(gm)
    gm.graph.lint()
    gm.recompile()
    if one.gives is not None:
        one.gives.check(gm, one.name)
    seconds = time.perf_counter() - start
    return Step(name=one.name, seconds=seconds, before=before, after=text(gm.graph), report=report)
