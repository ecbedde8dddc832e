"""The exporter of each kind of file, and which kind a model's target takes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import SizeLike
from fxqat.runtime.onnx import onnx_export
from fxqat.runtime.tflite import litert_export
from fxqat.targets import suffix_of as suffix_of_target


def suffix_of(model: Detector) -> str:
    """What the name of a file ends in that the runtime of the model's target opens: ``.onnx`` or ``.tflite``."""
    return suffix_of_target(model.recipe.target)


class Exporter(Protocol):
    """What writes one kind of file."""

    def __call__(
        self, model: Detector, path: str | Path, *, imgsz: SizeLike, batch: int, dynamic: bool, opset: int, input: str
    ) -> Path:
        """As ``export``."""


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
    """Write ``model``, stage ``int8`` or lowered in float, as the end of ``path`` says (``EXPORTERS``): see
    ``onnx_export`` and ``litert_export``.

    Raises:
        Problem: see these; a dynamic batch in a .tflite file.
    """
    write = EXPORTERS.get(Path(path).suffix, onnx_export.export)
    return write(model, path, imgsz=imgsz, batch=batch, dynamic=dynamic, opset=opset, input=input)


def _tflite(
    model: Detector, path: str | Path, *, imgsz: SizeLike, batch: int, dynamic: bool, opset: int, input: str
) -> Path:
    if dynamic:
        raise Problem(path, "has a batch of one size", expected="no dynamic batch", remedy="give the size as batch")
    return litert_export.export(model, path, imgsz=imgsz, batch=batch, input=input)


# By the end of a file's name; a name with another end is for the exporter of ONNX to refuse.
EXPORTERS: dict[str, Exporter] = {".onnx": onnx_export.export, ".tflite": _tflite}
