"""Candidates of a search: sets of float layers by predicted time and error, and the choice once they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxqat.search.layer_selection import Judge, Step

LEAST = 0.3  # of the base's error: what the slowest candidate may keep
EQUAL = 0.02  # of the time: two files that differ by less are called equally fast


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A set of layers in float, all others in INT8, with its predicted and measured time and error.

    Attributes:
        left: layers in float.
        steps: decisions that led to it.
        predicted: milliseconds, from profiles of the INT8 and the float file.
        divergence: predicted divergence of the output, nats.
        disagreement: measured share of the float model's confident predictions that differ, 0..1 (see
            ``fxqat.evaluation.disagreement``).
        milliseconds: measured, in turns with the other candidates.
    """

    left: tuple[str, ...]
    steps: tuple[Step, ...]
    predicted: float
    divergence: float
    disagreement: float = 0.0
    milliseconds: float = 0.0

    def measured(self, disagreement: float, milliseconds: float) -> Candidate:
        """This candidate with its measured disagreement (0..1) and time (ms)."""
        return replace(self, disagreement=disagreement, milliseconds=milliseconds)


def candidates(judge: Judge, count: int) -> tuple[Candidate, ...]:
    """The base, and a cheap candidate for each of ``count`` error budgets, from the base's whole error to LEAST of it.

    Each candidate starts from the one before; equal candidates appear once.
    """
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
    """The fastest candidate whose disagreement is at most ``allowed``; of equally fast ones that with the least.

    If no candidate is within ``allowed``, the one with the least disagreement.
    """
    legal = [one for one in measured if one.disagreement <= allowed]
    if not legal:
        return min(measured, key=lambda one: one.disagreement)
    fastest = min(one.milliseconds for one in legal)
    equal = [one for one in legal if one.milliseconds <= fastest * (1 + EQUAL)]
    return min(equal, key=lambda one: one.disagreement)
