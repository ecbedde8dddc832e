"""Files of format 1, which held no graph but a recipe: played again where Ultralytics still makes the same of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from torch import fx

from fxqat.checkpoint.fxqat_format import Raw, source_of
from fxqat.checkpoint.network import described, policy_of, records
from fxqat.errors import Problem
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import site_of
from fxqat.graph.text import text
from fxqat.models.detector import Detector, Recipe, Source
from fxqat.models.load import build, check_architecture
from fxqat.models.trace import trace
from fxqat.passes import Rules, converting, fusing, quantizing
from fxqat.passes.calibrate import use_method
from fxqat.quant.torch_ao import dequantize_per_tensor, disable_observer, quantize_per_tensor

_LITERAL = (quantize_per_tensor, dequantize_per_tensor)
_SOURCE = {one.name for one in fields(Source)}


def restored(raw: Raw, path: Path) -> Detector:
    """The detector of a file of format 1: its architecture built, traced and transformed again, and filled with its
    tensors; the graph's text must be the one that was written.

    Raises:
        Problem: damaged, or this version makes another graph of it.
    """
    try:
        source = source_of({name: value for name, value in raw.header["source"].items() if name in _SOURCE})
        told = dict(raw.header["recipe"])
        own = [*(name for name, _ in told.pop("patterns")), *told.pop("passes")]
        recipe, literals = Recipe(**told), dict(raw.header["literals"])
        wanted = raw.header["text_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Problem(path, f"is damaged: its recipe makes no sense ({error})", remedy="make it again") from error
    if own:
        raise _stale(path, f"was made with rules or passes of your own ({', '.join(own)})")
    detector = _played(source, recipe, path)
    _fill(detector.gm, raw, literals, path)
    if hashlib.sha256(text(detector.gm.graph).encode()).hexdigest() != wanted:
        raise _stale(path, "makes another graph with this version of fxqat, Ultralytics or torch")
    return detector


def _played(source: Source, recipe: Recipe, path: Path) -> Detector:
    """The detector that ``recipe`` makes of ``source``, without its numbers."""
    check_architecture(dict(source.architecture), str(path))
    gm = trace(build(dict(source.architecture))[0], str(path)).eval()
    if recipe.stage == "float":
        return Detector(gm, source, recipe, label=str(path)).eval()
    rules = Rules.load()
    first, last = fusing(rules), quantizing(policy_of(recipe), rules)
    report = first.apply(gm)
    network = described(gm)
    report += last.apply(gm)
    if method := recipe.calibration.get("method"):
        use_method(gm, method)
    gm.apply(disable_observer)
    passes = records(Pipeline((*first.passes, *last.passes)), report)
    if recipe.stage == "int8":
        lowering = converting(rules, policy_of(recipe).target)
        passes += records(lowering, lowering.apply(gm))
    return Detector(gm, source, replace(recipe, passes=passes), network, label=str(path)).eval()


def _fill(gm: fx.GraphModule, raw: Raw, literals: Mapping[str, tuple[float, int]], path: Path) -> None:
    try:
        gm.load_state_dict(dict(raw.tensors), strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise _stale(path, f"does not fit the graph built from its recipe ({first})") from error
    for node in gm.graph.nodes:
        if node.target in _LITERAL and site_of(node) in literals:
            node.args = (node.args[0], *literals[site_of(node)], *node.args[3:])
    gm.recompile()


def _stale(path: Path, what: str) -> Problem:
    return Problem(path, f"is of format 1, and {what}", remedy="run fxqat prepare again")
