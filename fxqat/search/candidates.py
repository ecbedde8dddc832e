"""Candidates of a search: layouts that no other one beats by prediction, and the choice among them once measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxqat.search.layer_selection import Judge, Step

LEAST = 0.3  # of the base's error: what the slowest candidate may keep
EQUAL = 0.02  # of the time: two files that differ by less are called equally fast


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout.

    Attributes:
        left: layers in float.
        steps: decisions that led to it.
        predicted: milliseconds by the profiler's costs.
        divergence: of the output, predicted, nats.
        disagreement: with float's confident predictions, measured, 0..1 (see ``fidelity``).
        milliseconds: measured, in turns with the other candidates.
    """

    left: tuple[str, ...]
    steps: tuple[Step, ...]
    predicted: float
    divergence: float
    disagreement: float = 0.0
    milliseconds: float = 0.0

    def measured(self, disagreement: float, milliseconds: float) -> Candidate:
        """The same with what was measured."""
        return replace(self, disagreement=disagreement, milliseconds=milliseconds)


def candidates(judge: Judge, count: int) -> tuple[Candidate, ...]:
    """The base, and for ``count`` shares of its error, from all to LEAST, a cheap layout that keeps no more, each made
    from the one before; each layout once."""
    whole = judge.harm(())
    found: dict[tuple[str, ...], Candidate] = {(): _candidate(judge, (), ())}
    left: tuple[str, ...] = ()
    for share in np.geomspace(1.0, LEAST, count):
        left, steps = judge.choose(float(share) * whole, left)
        found.setdefault(left, _candidate(judge, left, steps))
    return tuple(found.values())


def _candidate(judge: Judge, left: tuple[str, ...], steps: tuple[Step, ...]) -> Candidate:
    return Candidate(left=left, steps=steps, predicted=judge.cost(left), divergence=judge.harm(left))


def pick(measured: Sequence[Candidate], allowed: float) -> Candidate:
    """The fastest of those that disagree with float by no more than ``allowed``; among the equally fast the one that
    disagrees least. Where none is allowed, the one that disagrees least of all."""
    legal = [one for one in measured if one.disagreement <= allowed]
    if not legal:
        return min(measured, key=lambda one: one.disagreement)
    fastest = min(one.milliseconds for one in legal)
    equal = [one for one in legal if one.milliseconds <= fastest * (1 + EQUAL)]
    return min(equal, key=lambda one: one.disagreement)
