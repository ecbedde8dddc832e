"""The pass fuse: convolution, batch norm and activation become one module, as runtimes compute them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import fx

from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.rewrite import Rewrites, Rule, rewrite
from fxqat.passes.stages import CANONICAL, FUSED


@dataclass(frozen=True, kw_only=True)
class Fuse(TextPass):
    """Apply the rules of patterns/fuse.py."""

    rules: tuple[Rule, ...]
    name: str = "fuse"
    requires: Stage | None = CANONICAL
    gives: Stage | None = FUSED

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Fuse."""
        done = rewrite(gm, self.rules)
        return PassReport(says=summary(done), rewrites=done)


def summary(done: Rewrites) -> str:
    """How often each rule fired, in the order in which they first did."""
    counts = Counter(one.rule for one in done.applied)
    return ", ".join(f"{count} {rule}" for rule, count in counts.items()) or "no rule fired"
