"""What is known of a network's layouts, their time and their error, and the choice that follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fxqat.search.mixed_precision import Layout
from fxqat.search.op_costs import Costs

_NOISE = 0.01  # of the error: what a choice may seem to add; in float nothing is rounded, so it adds nothing
_TELLING = 0.05  # per cent: what is less is not worth a number
_BRANCH = 3  # the word of a site that counts branches: model.22.cv2.0.2, model.2.m.0.cv1.conv
_GAIN = 0.002  # of the network's time: what is less is beyond what the profiler can tell


@dataclass(frozen=True, kw_only=True)
class Step:
    """A decision: these layers in float, for this change of the network's time (ms) and output error (nats)."""

    layers: tuple[str, ...]
    milliseconds: float
    divergence: float


class Judge:
    """What is known of a network: the cost and the error of any layout.

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
        """Milliseconds with the layers ``left`` in float."""
        return self.layout.cost(left, self.int8, self.plain)

    def harm(self, left: Iterable[str]) -> float:
        """The output's divergence then, nats."""
        chosen = [self.place[name] for name in self.layout.awake(left) if name in self.place]
        return float(self.effects[np.ix_(chosen, chosen)].sum())

    def moves(self) -> list[tuple[str, ...]]:
        """What may be left in float as one: each layer, each block, the same layer of every branch (the head's box
        logits at all strides), and all up to a layer, which saves a border."""
        layers, blocks = self.layout.layers, dict[str, list[str]]()
        for site in layers:
            parts = site.split(".")
            blocks.setdefault(".".join(parts[:2]), []).append(site)
            if len(parts) > _BRANCH and parts[_BRANCH].isdigit():
                blocks.setdefault(".".join([*parts[:_BRANCH], "*", *parts[_BRANCH + 1 :]]), []).append(site)
        starts = [tuple(layers[: count + 1]) for count in range(1, len(layers) // 2)]
        return [(site,) for site in layers] + [tuple(block) for block in blocks.values() if len(block) > 1] + starts

    def choose(self, allowed: float, start: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[Step, ...]]:
        """Layers to leave in float: those of ``start``, whatever saves time, then what saves most error for its time
        until the divergence is ``allowed``, then back to INT8 whatever was not needed."""
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
        """In words, what ``part`` (sites) in INT8 would change where the layers ``left`` are in float."""
        layers = set(part) & set(left)
        if not layers:
            return "read by float layers alone" if part[0] in self.layout.inputs else "its inputs are float"
        without = set(left) - layers
        error = 100 * (self.harm(without) - self.harm(left)) / (self.harm(()) or 1.0)
        time = 100 * (self.cost(without) - self.cost(left)) / (self.cost(()) or 1.0)
        more = f"{error:.1f} % of the output's error" if error > _TELLING else "no error"
        verb = "add" if time >= 0 else "save"
        return f"INT8 here would add {more} and {verb} {abs(time):.1f} % of the time"
