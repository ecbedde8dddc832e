"""convert and export: the INT8 reference graph, and the file that a runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import fx

from fxqat.checkpoint.network import policy_of, records
from fxqat.graph.pipeline import Report
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize, SizeLike
from fxqat.passes import Rules, converting, preparing
from fxqat.policy import Policy
from fxqat.runtime import exporters
from fxqat.workflow.stage_checks import expect_calibrated

Files = Sequence[str | Path]
Progress = Callable[[int, int], None]


def convert(model: Detector) -> tuple[Detector, Report]:
    """Lower a calibrated or trained detector to the INT8 reference graph.

    Returns:
        A new detector at stage ``int8``, and what the pass did.

    Raises:
        Problem: the detector was never calibrated, or rules of the user's own that lower it are not at hand.
    """
    expect_calibrated(model, "convert")
    rules = Rules.recorded(model.recipe.patterns, "LOWER", "convert")
    pipeline = converting(rules, policy_of(model.recipe).target)
    gm, report = pipeline.run(model.gm)
    return model.with_graph(gm, stage="int8", passes=(*model.recipe.passes, *records(pipeline, report))), report


def export(
    model: Detector,
    path: str | Path,
    *,
    imgsz: SizeLike | None = None,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 20,
    input: str = "float",
) -> Path:
    """Write a file that the target's runtime and ``ultralytics.YOLO`` load: ONNX, or .tflite for LiteRT.

    Args:
        model: stage ``int8``; a calibrated ``qat`` detector is converted first, a ``float`` one is exported in float.
        path: ends in .onnx or, for target ``litert`` and models in float, in .tflite.
        imgsz: one side, or height and width, multiples of the model's stride; by default as trained or calibrated, or
            640.
        batch: images at a time; with ``dynamic`` any number.
        dynamic: leave the batch size open (ONNX only).
        opset: 13 to 21 (ONNX only); the numbers are the same in all.
        input: ``float``: (B, 3, H, W) in 0..1; ``uint8``: the same in 0..255; ``uint8-nhwc``: (B, H, W, 3) in 0..255.
            A .tflite file takes (B, H, W, 3), ``float``, ``uint8`` or ``int8``.

    Raises:
        Problem: a bad size, opset, input or path, or a path that is not for the model's target.
    """
    if model.stage == "qat":
        model, _ = convert(model)
    if model.stage == "float":
        rules = Rules.recorded(model.recipe.patterns, "LOWER", "export")
        gm, _ = converting(rules, Policy.load("float").target).run(_float(model))
        model = model.with_graph(gm)
    size = model.imgsz if imgsz is None else ImageSize.of(imgsz)
    return exporters.export(model, path, imgsz=size, batch=batch, dynamic=dynamic, opset=opset, input=input)


def _float(model: Detector) -> fx.GraphModule:
    rules = Rules.recorded(model.recipe.patterns, "FUSE", "export")
    gm, _ = preparing(Policy.load("float"), rules).run(model.gm)
    return gm
