"""lower: the trained graph as the INT8 reference graph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.prune import drop_unused_modules
from fxqat.graph.rewrite import Rule, rewrite
from fxqat.passes.fuse import summary
from fxqat.stages import INT8


@dataclass(frozen=True, kw_only=True)
class Lower:
    """Freeze every range, fold every batch norm, and write quantization as operations on integer buffers."""

    rules: tuple[Rule, ...]
    name: str = "lower"
    gives: Stage | None = INT8

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Lower."""
        done = rewrite(gm.eval(), self.rules)
        gm.graph.eliminate_dead_code()
        drop_unused_modules(gm)
        return PassReport(says=summary(done), rewrites=done)
