"""The float network behind a quantized one, as a file: what its speed and memory are compared with."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import fx

from fxqat.checkpoint.network import policy_of
from fxqat.graph.prune import drop_unused_modules
from fxqat.graph.rewrite import rewrite
from fxqat.models.detector import Detector
from fxqat.models.image_size import DEFAULT_SIZE, SizeLike
from fxqat.passes import Rules, converting
from fxqat.passes.quant_graph import annotate, layer_of
from fxqat.passes.unquantize import no_quantizer, silu
from fxqat.runtime.exporters import export


def export_float(model: Detector, path: str | Path, *, imgsz: SizeLike = DEFAULT_SIZE, batch: int = 1) -> Path:
    """Write the detector's own network, its weights as they are and every quantizer gone, as fxqat exports a float one.

    Args:
        model: stage ``qat``; it stays as it is.
        path: ends in .onnx or .tflite.
        imgsz: one side, or height and width.
        batch: images at a time.

    Raises:
        Problem: rules of the user's own that lower are not at hand.
    """
    gm = copy.deepcopy(model.gm)
    rewrite(gm, (no_quantizer, silu))
    for node in gm.graph.nodes:
        _forget(node)
    gm.graph.eliminate_dead_code()
    drop_unused_modules(gm)
    gm.recompile()
    rules = Rules.recorded(model.recipe.patterns, "LOWER", "export")
    lowered, _ = converting(rules, policy_of(model.recipe).target).run(gm)
    return export(model.with_graph(lowered, stage="float"), path, imgsz=imgsz, batch=batch)


def _forget(node: fx.Node) -> None:
    annotate(node, quantizer=None, weight=None, activation=None)
    if (layer := layer_of(node)) is not None:
        node.args = node.args[:1]
        layer.weight_fake_quant = None
