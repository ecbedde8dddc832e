"""Pipelines: passes in a visible order; what each requires and gives is checked, its difference kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import fx

from fxqat.errors import Problem
from fxqat.graph.match import Pattern, fits
from fxqat.graph.rewrite import NearMiss, Rewrites
from fxqat.graph.site import operation, site_of
from fxqat.graph.text import diff, line, text


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One thing that holds after a pass: ``broken(gm)`` yields a (node, reason) for every place where it does not."""

    says: str
    broken: Callable[[fx.GraphModule], Iterator[tuple[fx.Node, str]]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A state of the graph that has a name: what may stand in it, and what must hold.

    Attributes:
        name: unique, such as ``FUSED`` or ``QAT for ort-cpu``.
        accepts: the operations that may occur, by the words that ``operation`` gives; anything else is refused. None
            where a model may still hold operations that nobody knows.
        promises: what holds beyond that.
    """

    name: str
    accepts: frozenset[str] | None = None
    promises: tuple[Promise, ...] = ()

    def check(
        self, gm: fx.GraphModule, where: str, *, mend: str = "mend the pass, or take it out of the pipeline"
    ) -> None:
        """Raise BrokenPromise at the first node where something does not hold; ``where`` and ``mend`` stand in it."""
        known = () if self.accepts is None else (only(self.accepts),)
        for promise in (*known, *self.promises):
            for node, reason in promise.broken(gm):
                raise BrokenPromise(where, self, promise, node, reason, mend)


class BrokenPromise(Problem):
    """A graph that is not in the stage that a pass gives or requires: a defect of a pass, shipped or the user's own, or
    of their order."""

    def __init__(self, where: str, stage: Stage, promise: Promise, node: fx.Node, reason: str, mend: str) -> None:
        super().__init__(
            f"{where} at {site_of(node)}",
            f"{reason} [{line(node)}]",
            expected=f"the stage {stage.name}: {promise.says}",
            remedy=mend,
        )


def only(operations: frozenset[str]) -> Promise:
    """The promise that no operation but ``operations`` occurs; inputs, outputs and attributes may."""

    def broken(gm: fx.GraphModule) -> Iterator[tuple[fx.Node, str]]:
        for node in gm.graph.nodes:
            if node.op.startswith("call_") and operation(node) not in operations:
                yield node, f"is {operation(node)}"

    return Promise(says=f"nothing but {', '.join(sorted(operations))}", broken=broken)


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
    """A change to a graph, in place. In practice a frozen dataclass: its fields are its options.

    It may have an attribute ``requires``, the stage that the graph must be in before it.
    """

    @property
    def name(self) -> str:
        """A verb."""

    @property
    def gives(self) -> Stage | None:
        """The stage that holds afterwards, checked each time; None where it leaves the stage as it is."""

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Change ``gm`` in place."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The moment between two passes, or before the first or after the last.

    Attributes:
        gm: the graph as it is.
        done: the pass that has just run; None before the first.
        coming: the pass that runs next; None after the last.
        report: what ``done`` had to say.
    """

    gm: fx.GraphModule
    done: Pass | None = None
    coming: Pass | None = None
    report: PassReport | None = None


Between = Callable[[Gap], None]


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
    def missed(self) -> tuple[NearMiss, ...]:
        """Every rule that nearly fired, deepest match first."""
        misses = [miss for step in self.steps for miss in step.report.rewrites.missed]
        return tuple(sorted(misses, key=lambda miss: -miss.depth))

    def __str__(self) -> str:
        return "".join(f"{step.name:<14} {step.seconds * 1e3:7.1f} ms  {step.report.says}\n" for step in self.steps)


@dataclass(frozen=True)
class Pipeline:
    """Passes in order."""

    passes: Sequence[Pass]

    def run(self, gm: fx.GraphModule, between: Between | None = None) -> tuple[fx.GraphModule, Report]:
        """Run every pass on one copy of ``gm``, which stays as it is.

        Args:
            gm: the graph.
            between: called between any two passes, before the first and after the last, when the graph was checked.

        Raises:
            BrokenPromise: a pass did not keep the promise of the stage it gives, or was given a graph that is not in
                the stage it requires.
        """
        gm = copy.deepcopy(gm)
        return gm, self.apply(gm, between)

    def apply(self, gm: fx.GraphModule, between: Between | None = None) -> Report:
        """Run every pass on ``gm`` itself; see ``run``."""
        verify, record = Verifier(), Recorder()
        for gap in self._gaps(gm):
            for one in (verify, record, between):
                if one is not None:
                    one(gap)
            record.start = time.perf_counter()
        return record.report()

    def _gaps(self, gm: fx.GraphModule) -> Iterator[Gap]:
        """Run the passes, and stop at each gap."""
        done: Pass | None = None
        report: PassReport | None = None
        for coming in (*self.passes, None):
            yield Gap(gm=gm, done=done, coming=coming, report=report)
            if coming is not None:
                done, report = coming, coming(gm)


class Verifier:
    """Lints the graph in each gap, and checks the stage that the last pass gives and the one that the next requires."""

    def __init__(self) -> None:
        self.known = ""  # the stage that was checked when the graph last changed

    def __call__(self, gap: Gap) -> None:
        """Check.

        Raises:
            BrokenPromise: a stage that does not hold.
        """
        if gap.done is not None:
            self._check_given(gap.gm, gap.done)
        required: Stage | None = getattr(gap.coming, "requires", None)
        if required is not None and required.name != self.known:
            where, mend = f"before the pass {gap.coming.name}", "run the passes that give it first"  # type: ignore[union-attr]
            required.check(gap.gm, where, mend=mend)

    def _check_given(self, gm: fx.GraphModule, done: Pass) -> None:
        gm.graph.lint()
        gm.recompile()
        if done.gives is not None:
            done.gives.check(gm, f"pass {done.name}")
        self.known = "" if done.gives is None else done.gives.name


class Recorder:
    """Writes down how long each pass took, its checks included, and the text before and after it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.text, self.start = "", 0.0

    def __call__(self, gap: Gap) -> None:
        """Add the step that ended in this gap."""
        seconds, before = time.perf_counter() - self.start, self.text
        self.text = text(gap.gm.graph)
        if gap.done is not None and gap.report is not None:
            done = Step(name=gap.done.name, seconds=seconds, before=before, after=self.text, report=gap.report)
            self.steps.append(done)

    def report(self) -> Report:
        """All steps."""
        return Report(steps=tuple(self.steps))
