"""Detectors in and out of files: a .fxqat is its recipe, run again, with the tensors put back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import fx

from fxqat.checkpoint import fxqat_format
from fxqat.errors import Problem
from fxqat.graph.pipeline import Pass
from fxqat.graph.site import site_of
from fxqat.graph.text import text
from fxqat.models import offline
from fxqat.models.detector import Detector, Recipe, Source
from fxqat.models.load import build, check_architecture, fetched, load_pt
from fxqat.models.trace import trace
from fxqat.passes import Rules, converting, preparing
from fxqat.passes.calibrate import use_method
from fxqat.policy import Policy
from fxqat.quant.torch_ao import dequantize_per_tensor, disable_observer, quantize_per_tensor

Files = Sequence[str | Path]
_LITERAL = (quantize_per_tensor, dequantize_per_tensor)


def load(
    model: str | Path,
    *,
    trust: bool = False,
    classes: int | None = None,
    patterns: Files = (),
    passes: Sequence[Pass] = (),
) -> Detector:
    """A detector from an Ultralytics checkpoint (.pt), an architecture (``yolov8n.yaml``), or a .fxqat file.

    Args:
        model: path, or a name that Ultralytics knows.
        trust: let a .pt run code (see ``fxqat.models.load``).
        classes: number of classes, for an architecture.
        patterns: the user's rule files that a .fxqat was made with.
        passes: the user's own passes that a .fxqat was made with.

    Raises:
        Problem: no such file, not a detector, unsafe, damaged, or made with other patterns or passes.
    """
    offline.quiet()
    path = Path(model)
    if path.suffix == ".fxqat":
        return _restore(path, patterns, passes)
    if path.suffix == ".onnx":
        raise Problem(
            path,
            "is an exported file",
            expected="a .pt, .yaml or .fxqat file",
            remedy="start from the checkpoint it was made of",
        )
    float_model, source = load_pt(fetched(path), trust=trust) if path.suffix == ".pt" else build(model, classes=classes)
    return Detector(trace(float_model, source.name), source, Recipe()).eval()


def save(model: Detector, path: str | Path) -> Path:
    """Write a detector to a .fxqat file, atomically."""
    path = Path(path)
    if path.suffix != ".fxqat":
        raise Problem(path, f"ends in {path.suffix or 'nothing'!r}", expected="a name that ends in .fxqat")
    content = fxqat_format.Content(
        source=model.source,
        recipe=model.recipe,
        tensors=model.gm.state_dict(),
        literals=_literals(model.gm),
        text_sha256=_fingerprint(model.gm),
    )
    fxqat_format.write(path, content)
    return path


def _restore(path: Path, patterns: Files, passes: Sequence[Pass]) -> Detector:
    """Build, trace and transform again, then fill in the tensors and compare the graph's text with the one written."""
    content = fxqat_format.read(path)
    return _filled(rebuilt(content.source, content.recipe, str(path), patterns, passes), content, path)


def rebuilt(source: Source, recipe: Recipe, where: str, patterns: Files, passes: Sequence[Pass]) -> Detector:
    """The detector that ``recipe`` makes of ``source``, without its numbers; ``where`` stands in errors.

    Raises:
        Problem: an architecture that cannot be built, or other patterns or passes than the recipe's.
    """
    check_architecture(dict(source.architecture), where)
    float_model, _ = build(dict(source.architecture), channels=source.channels)
    detector = Detector(trace(float_model, where), source, Recipe()).eval()
    if recipe.stage == "float":
        return detector
    rules = same_rules(recipe, patterns)
    _same_passes(recipe, passes)
    gm, _ = preparing(policy_of(recipe), rules, passes).run(detector.gm)
    if method := recipe.calibration.get("method"):
        use_method(gm, method)
    gm.apply(disable_observer)
    if recipe.stage == "int8":
        gm, _ = converting(rules).run(gm)
    return Detector(gm, source, recipe).eval()


def policy_of(recipe: Recipe) -> Policy:
    """The policy that a detector was prepared with, for the target it was prepared for."""
    return Policy.parse(recipe.policy_text, recipe.policy_name, target=recipe.target, recorded=True)


def _filled(detector: Detector, content: fxqat_format.Content, path: Path) -> Detector:
    try:
        detector.gm.load_state_dict(dict(content.tensors), strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise Problem(
            path, f"does not fit the graph built from its recipe ({first})", remedy="make it again with this fxqat"
        ) from error
    for node in detector.gm.graph.nodes:
        if node.target in _LITERAL and site_of(node) in content.literals:
            node.args = (node.args[0], *content.literals[site_of(node)], *node.args[3:])
    detector.gm.recompile()
    if _fingerprint(detector.gm) != content.text_sha256:
        raise Problem(
            path,
            "its recipe builds another graph with this version",
            remedy="make it again, or use the versions in its header",
        )
    return detector


def same_rules(recipe: Recipe, patterns: Files) -> Rules:
    """The rules that ``recipe`` was made with.

    Raises:
        Problem: ``patterns`` are other files.
    """
    rules = Rules.load(*patterns)
    if recipe.stage != "float" and rules.files != recipe.patterns:
        wanted = ", ".join(f"{name} ({digest[:12]})" for name, digest in recipe.patterns) or "none"
        raise Problem(
            "--patterns", f"the model was prepared with other rule files than these {len(patterns)}", expected=wanted
        )
    return rules


def _same_passes(recipe: Recipe, passes: Sequence[Pass]) -> None:
    if tuple(one.name for one in passes) != recipe.passes:
        raise Problem(
            "passes",
            "the model was prepared with other passes",
            expected=", ".join(recipe.passes) or "none",
            remedy="give them to load()",
        )


def _literals(gm: fx.GraphModule) -> dict[str, tuple[float, int]]:
    return {site_of(node): (node.args[1], node.args[2]) for node in gm.graph.nodes if node.target in _LITERAL}


def _fingerprint(gm: fx.GraphModule) -> str:
    return hashlib.sha256(text(gm.graph).encode()).hexdigest()
