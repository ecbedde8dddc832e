"""A model as evaluation sees it: a name, a prediction function, its classes. Made here from ONNX files."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxqat.errors import Problem

BOX = 4


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Something that detects.

    Args:
        name: what reports call it.
        predict: images (N, 3, H, W) float32 RGB in 0..1 to y (N, 4 + nc, A) float32, centre x, centre y, width and
            height in pixels above nc probabilities; or a tuple whose first item is that.
        names: class names by index, nc of them.
        path: its file, where there is one.
        imgsz: the only image size it takes; None for any.
    """

    name: str
    predict: Callable[[Tensor], Any]
    names: dict[int, str]
    path: Path | None = None
    imgsz: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Predict without gradients and check the shape.

        Raises:
            Problem: the output is not (N, 4 + nc, A).
        """
        with torch.no_grad():
            output = self.predict(images)
        y = output[0] if isinstance(output, (tuple, list)) else output
        channels = BOX + len(self.names)
        if y.ndim != 3 or y.shape[:2] != (len(images), channels):
            shape = f"(N={len(images)}, 4 + nc={channels}, A)"
            raise Problem(self.name, f"its output has shape {tuple(y.shape)}", expected=f"{shape}: a detector's y")
        return y.float()


def from_onnx(path: str | Path, *, threads: int | None = None) -> Evaluated:
    """Load an ONNX detector into ONNX Runtime on the CPU, default session options apart from ``threads``.

    Classes come from Ultralytics' metadata; a file without it gets placeholder names, as many as its output holds.
    With a fixed batch, batches are split and the last one is padded with zeros.

    Raises:
        Problem: the file is missing or no ONNX model, or not a detector with one image input.
    """
    path = Path(path)
    session = _session(path, threads)
    source = session.get_inputs()[0]
    batch, channels, height, width = _image_shape(path, session)
    if channels not in (3, None) or height != width:
        raise Problem(path, f"its input has shape {source.shape}", expected="(N, 3, H, H)")
    return Evaluated(
        name=path.name,
        predict=_Predict(session, source.name, batch),
        names=_names(path, session),
        path=path,
        imgsz=height,
    )


class _Predict:
    """Run a session over a batch of any size, on floats in 0..1 or on bytes, as the file wants them."""

    def __init__(self, session: Any, source: str, batch: int | None) -> None:
        self.session, self.source, self.batch = session, source, batch
        self.bytes, self.last = _takes_bytes(session), _has_channels_last(session)

    def __call__(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().byte().numpy() if self.bytes else images.numpy()
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if self.last else pixels
        size = self.batch or len(pixels)
        parts = [self._run(pixels[start : start + size], size) for start in range(0, len(pixels), size)]
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, pixels: np.ndarray, size: int) -> np.ndarray:
        padding = np.zeros((size - len(pixels), *pixels.shape[1:]), pixels.dtype)
        output: np.ndarray = self.session.run(None, {self.source: np.concatenate([pixels, padding])})[0]
        return output[: len(pixels)]


def _session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    if not path.is_file():
        raise Problem(path, "no such file", expected="an ONNX model")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which arrive as exceptions anyway
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a type of its own for each way a file can be wrong
        raise Problem(path, f"ONNX Runtime cannot load it: {error}", remedy="export it again") from error


def _image_shape(path: Path, session: Any) -> tuple[int | None, ...]:
    """The input's sizes as (N, C, H, W); None where it is dynamic."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in {"tensor(float)", "tensor(uint8)"}:
        given = ", ".join(f"{item.name} {item.type} {item.shape}" for item in inputs)
        raise Problem(path, f"takes {given or 'no input'}", expected="one float image input (N, 3, H, W), or bytes")
    batch, *sizes = (size if isinstance(size, int) else None for size in inputs[0].shape)
    return (batch, sizes[-1], *sizes[:-1]) if _has_channels_last(session) else (batch, *sizes)


def _takes_bytes(session: Any) -> bool:
    return bool(session.get_inputs()[0].type == "tensor(uint8)")


def _has_channels_last(session: Any) -> bool:
    return _takes_bytes(session) and session.get_inputs()[0].shape[-1] == 3


def _names(path: Path, session: Any) -> dict[int, str]:
    metadata = session.get_modelmeta().custom_metadata_map
    if (task := metadata.get("task", "detect")) != "detect":
        raise Problem(path, f"is a model for the task '{task}'", expected="a detector")
    if "names" in metadata:
        return _parse_names(path, metadata["names"])
    shape = session.get_outputs()[0].shape
    if len(shape) != 3 or not isinstance(shape[1], int) or shape[1] <= BOX:
        raise Problem(path, f"has no class names and an output of shape {shape}", expected="Ultralytics' metadata")
    return {index: f"class_{index}" for index in range(shape[1] - BOX)}


def _parse_names(path: Path, text: str) -> dict[int, str]:
    try:
        return {int(index): str(name) for index, name in ast.literal_eval(text).items()}
    except (ValueError, SyntaxError, AttributeError) as error:
        raise Problem(path, "its metadata 'names' is no mapping of numbers to names") from error
