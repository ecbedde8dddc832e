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
from fxqat.policy import Policy
from fxqat.targets import Target

__all__ = [
    "Assign",
    "Canonicalize",
    "Fuse",
    "Insert",
    "Lower",
    "Rules",
    "converting",
    "fusing",
    "preparing",
    "quantizing",
    "sites",
]


def fusing(rules: Rules, passes: Sequence[Pass] = ()) -> Pipeline:
    """From a trace to a fused graph; a user's own ``passes`` run last."""
    return Pipeline((Canonicalize(), Fuse(rules=rules.fuse), *passes))


def preparing(policy: Policy, rules: Rules, passes: Sequence[Pass] = ()) -> Pipeline:
    """From a trace to the graph that is calibrated and trained; a user's own ``passes`` run on the fused graph."""
    return Pipeline((*fusing(rules, passes).passes, *quantizing(policy, rules).passes))


def quantizing(policy: Policy, rules: Rules) -> Pipeline:
    """From a fused graph to the one that is calibrated and trained."""
    target = policy.target
    insert = Insert(target=target, rules=rules.quantizing(target))
    return Pipeline((Assign(policy=policy), insert))


def converting(rules: Rules, target: Target) -> Pipeline:
    """From the calibrated or trained graph to the INT8 reference graph for ``target``."""
    return Pipeline((Lower(rules=rules.lower, target=target),))
