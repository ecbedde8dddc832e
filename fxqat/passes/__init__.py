"""Passes, one a file, and the pipelines as visible tuples. The only room where graphs and quantization meet."""

from __future__ import annotations

from collections.abc import Sequence

from fxqat.graph.pipeline import Pass, Pipeline
from fxqat.passes.assign import Assign, sites
from fxqat.passes.canonicalize import Canonicalize
from fxqat.passes.fuse import Fuse
from fxqat.passes.insert import Insert
from fxqat.passes.lower import Lower
from fxqat.passes.rule_files import Rules
from fxqat.passes.stages import QAT, QAT_FLOAT_BIAS
from fxqat.policy import Policy

__all__ = ["Assign", "Canonicalize", "Fuse", "Insert", "Lower", "Rules", "converting", "fusing", "preparing", "sites"]


def fusing(rules: Rules, passes: Sequence[Pass] = ()) -> Pipeline:
    """From a trace to a fused graph; a user's own ``passes`` run last."""
    return Pipeline((Canonicalize(), Fuse(rules=rules.fuse), *passes))


def preparing(policy: Policy, rules: Rules, passes: Sequence[Pass] = ()) -> Pipeline:
    """From a trace to the graph that is calibrated and trained; a user's own ``passes`` run on the fused graph."""
    target = policy.target
    stage = QAT if target.integer_bias else QAT_FLOAT_BIAS
    insert = Insert(target=target, rules=rules.quantize.get(target.name, ()), gives=stage)
    return Pipeline((*fusing(rules, passes).passes, Assign(policy=policy), insert))


def converting(rules: Rules) -> Pipeline:
    """From the calibrated or trained graph to the INT8 reference graph."""
    return Pipeline((Lower(rules=rules.lower),))
