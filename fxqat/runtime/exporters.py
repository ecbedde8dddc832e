"""The exporter of each kind of file, and which kind a model's target takes."""

from __future__ import annotations

from pathlib import Path

from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import SizeLike
from fxqat.runtime.onnx import onnx_export
from fxqat.runtime.tflite import litert_export
from fxqat.targets import suffix_of as suffix_of_target


def suffix_of(model: Detector) -> str:
    """What the name of a file ends in that the runtime of the model's target opens: ``.onnx`` or ``.tflite``."""
    return suffix_of_target(model.recipe.target)


def export(
    model: Detector,
    path: str | Path,
    *,
    imgsz: SizeLike,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 20,
    input: str = "float",
) -> Path:
    """Write ``model``, stage ``int8`` or lowered in float, as the end of ``path`` says: see ``onnx_export`` and
    ``litert_export``.

    Raises:
        Problem: see these; a dynamic batch in a .tflite file.
    """
    if Path(path).suffix != ".tflite":
        return onnx_export.export(model, path, imgsz=imgsz, batch=batch, dynamic=dynamic, opset=opset, input=input)
    if dynamic:
        raise Problem(path, "has a batch of one size", expected="no dynamic batch", remedy="give the size as batch")
    return litert_export.export(model, path, imgsz=imgsz, batch=batch, input=input)
