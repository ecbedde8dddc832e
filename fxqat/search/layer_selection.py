"""The layers to keep in float, selected by predicted time and predicted error at the output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fxqat.search.mixed_precision import Layout
from fxqat.search.op_costs import Costs

_NOISE = 0.01  # of the error: an increase up to this is estimation noise, since a layer in float adds no rounding
_TELLING = 0.05  # per cent: a smaller error is reported as none
_BRANCH = 3  # the word of a site that counts branches, as in model.2.m.0.cv1.conv
_GAIN = 0.002  # of the network's time: the profiler cannot measure less


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision: layers moved to float, and the predicted change of time (ms) and output divergence (nats)."""

    layers: tuple[str, ...]
    milliseconds: float
    divergence: float


class Judge:
    """Predicted time and output error of a network for any set of layers in float.

    Args:
        layout: of the network.
        int8: costs with everything in INT8.
        plain: costs in float.
        effects: of the quantizers on the output, ``E[z z'] / 2``.
        names: of the quantizers, in order.
    """

    def __init__(self, layout: Layout, int8: Costs, plain: Costs, effects: np.ndarray, names: Sequence[str]) -> None:
        self.layout, self.int8, self.plain, self.effects = layout, int8, plain, effects
        self.place = {name: index for index, name in enumerate(names)}

    def cost(self, left: Iterable[str]) -> float:
        """Predicted time with the layers ``left`` in float, milliseconds."""
        return self.layout.cost(left, self.int8, self.plain)

    def harm(self, left: Iterable[str]) -> float:
        """Predicted divergence of the output with the layers ``left`` in float, nats."""
        chosen = [self.place[name] for name in self.layout.awake(left) if name in self.place]
        return float(self.effects[np.ix_(chosen, chosen)].sum())

    def moves(self) -> list[tuple[str, ...]]:
        """Sets of layers that are moved to float together: each layer, each block, the same layer of every branch (such
        as the box logits at all strides), and all layers up to one, which saves a quantize operation."""
        layers, blocks = self.layout.layers, dict[str, list[str]]()
        for site in layers:
            parts = site.split(".")
            blocks.setdefault(".".join(parts[:2]), []).append(site)
            if len(parts) > _BRANCH and parts[_BRANCH].isdigit():
                blocks.setdefault(".".join([*parts[:_BRANCH], "*", *parts[_BRANCH + 1 :]]), []).append(site)
        starts = [tuple(layers[: count + 1]) for count in range(1, len(layers) // 2)]
        return [(site,) for site in layers] + [tuple(block) for block in blocks.values() if len(block) > 1] + starts

    def choose(self, allowed: float, start: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[Step, ...]]:
        """Layers to keep in float so that the predicted divergence is at most ``allowed``.

        Starts from ``start``, adds layers that are faster in float, then greedily those that save most error for their
        time, and at the end returns to INT8 any layer that is not needed.
        """
        left, steps = set(start), list[Step]()
        while step := self._next(left, allowed):
            left |= set(step.layers)
            steps.append(step)
        kept = self._pruned(left, allowed)
        return tuple(site for site in self.layout.layers if site in kept), tuple(steps)

    def _next(self, left: set[str], allowed: float) -> Step | None:
        cost, harm = self.cost(left), self.harm(left)
        options = [self._step(move, left, cost, harm) for move in self.moves() if set(move) - left]
        faster = [
            step for step in options if step.milliseconds < -_GAIN * cost and step.divergence <= _NOISE * self.harm(())
        ]
        if faster:
            return min(faster, key=lambda step: step.milliseconds)
        if harm <= allowed:
            return None
        better = [step for step in options if step.divergence < 0]
        return max(better, key=lambda step: -step.divergence / max(step.milliseconds, 1e-6), default=None)

    def _step(self, move: Sequence[str], left: set[str], cost: float, harm: float) -> Step:
        then = left | set(move)
        new = tuple(site for site in move if site not in left)
        return Step(layers=new, milliseconds=self.cost(then) - cost, divergence=self.harm(then) - harm)

    def _pruned(self, left: set[str], allowed: float) -> set[str]:
        for site in sorted(left, key=self.layout.layers.index, reverse=True):
            without = left - {site}
            if self.cost(without) < self.cost(left) and self.harm(without) <= max(allowed, self.harm(left)):
                left = without
        return left

    def why(self, left: Sequence[str], part: Sequence[str]) -> str:
        """The reason that the written policy gives: the change of error and time if ``part`` (sites) were in INT8 and
        the other layers of ``left`` in float."""
        layers = set(part) & set(left)
        if not layers:
            return "read by float layers alone" if part[0] in self.layout.inputs else "its inputs are float"
        without = set(left) - layers
        error = 100 * (self.harm(without) - self.harm(left)) / (self.harm(()) or 1.0)
        time = 100 * (self.cost(without) - self.cost(left)) / (self.cost(()) or 1.0)
        more = f"{error:.1f} % of the output's error" if error > _TELLING else "no error"
        verb = "add" if time >= 0 else "save"
        return f"INT8 here would add {more} and {verb} {abs(time):.1f} % of the time"
