"""A model as evaluation sees it: a name, a prediction function, its classes. Made here from ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.families import DEFAULT
from fxqat.models.family import Family, FinalOutput, HeadSpec, LabelRow
from fxqat.models.file_head import file_head
from fxqat.models.image_size import ImageSize
from fxqat.runtime.onnx.onnx_file import read
from fxqat.runtime.refusals import runtime_refusals

_RUNTIME = "ONNX Runtime"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Something that predicts.

    Args:
        name: what reports call it.
        predict: images (N, 3, H, W) float32 RGB in 0..1 to the final outputs of its family: a tensor, or a tuple of
            them.
        names: class names by index.
        path: its file, where there is one.
        imgsz: the only image size it takes; None for any multiple of ``stride``.
        stride: pixels of a cell of the coarsest level, 32 at least.
        family: of its task.
        spec: sizes of its head; by default those of YOLOv8's with its classes.
        usual: the image size that it was calibrated at, or trained at with quantizers, where that is known.
        float_size: the one that its float model was trained at, where that is known.
    """

    name: str
    predict: Callable[[Tensor], Any]
    names: dict[int, str]
    path: Path | None = None
    imgsz: ImageSize | None = None
    stride: int = 32
    family: Family = DEFAULT
    spec: HeadSpec | None = None
    usual: ImageSize | None = None
    float_size: ImageSize | None = None

    @classmethod
    def of(
        cls,
        model: Detector,
        predict: Callable[[Tensor], Any],
        *,
        name: str | None = None,
        path: Path | None = None,
    ) -> Predictor:
        """``model``, computed by ``predict``."""
        source = model.source
        return cls(
            name=name or source.name,
            predict=predict,
            names=dict(model.names),
            path=path,
            stride=model.stride,
            family=source.family,
            spec=source.head_spec,
            usual=model.imgsz if model.recipe.calibration or model.recipe.training else None,
            float_size=model.imgsz if source.imgsz else None,
        )

    @property
    def final(self) -> tuple[FinalOutput, ...]:
        """Its outputs."""
        return self.family.final(self.head)

    @property
    def head(self) -> HeadSpec:
        """The sizes of its head."""
        return self.spec or HeadSpec(classes=len(self.names))

    @property
    def row(self) -> LabelRow:
        """A row of the label files that it is measured against."""
        return self.family.row(self.head)

    def __call__(self, images: Tensor) -> Any:
        """The final outputs, float32, a tuple where there are several; without gradients.

        Raises:
            Problem: the outputs are not the family's.
        """
        with torch.no_grad():
            output = self.predict(images)
        found = output if isinstance(output, tuple | list) else (output,)
        if len(found) < len(self.final):
            raise Problem(self.name, f"has {len(found)} outputs", expected=f"{len(self.final)}")
        for wanted, y in zip(self.final, found, strict=False):
            if not wanted.fits(y, len(images)):
                shape = f"its output {wanted.name} has shape {tuple(y.shape)}"
                raise Problem(self.name, shape, expected=f"{wanted.shape}, N = {len(images)}")
        return found[0].float() if len(self.final) == 1 else tuple(y.float() for y in found)


def from_onnx(path: str | Path, *, threads: int | None = None) -> Predictor:
    """Load an ONNX model into ONNX Runtime on the CPU, default session options apart from ``threads``.

    Task and classes come from Ultralytics' metadata; a file without it is taken for a detector and gets placeholder
    names, as many as its output holds.
    With a fixed batch, batches are split and the last one is padded with zeros.

    Raises:
        Problem: the file is missing or no ONNX model, or not a model with one image input.
    """
    path = Path(path)
    session = _session(path, threads)
    source = session.get_inputs()[0]
    batch, channels, height, width = _image_shape(path, session)
    metadata = session.get_modelmeta().custom_metadata_map
    shapes = [one.shape for one in session.get_outputs()]
    head = file_head(path, metadata, _names(path, session, metadata), shapes)
    if channels not in (3, None):
        raise Problem(path, f"its input has shape {source.shape}", expected="(N, 3, H, W)")
    return Predictor(
        name=path.name,
        predict=_Predict(path, session, source.name, batch),
        names=head.names,
        path=path,
        imgsz=ImageSize(height=height, width=width) if height and width else None,
        stride=head.stride,
        family=head.family,
        spec=head.spec,
    )


class _Predict:
    """Run a session over a batch of any size, on floats in 0..1 or on bytes, as the file wants them."""

    def __init__(self, path: Path, session: Any, source: str, batch: int | None) -> None:
        self.path, self.session, self.source, self.batch = path, session, source, batch
        self.bytes, self.last = _takes_bytes(session), _has_channels_last(session)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = (images * 255).round().byte().numpy() if self.bytes else images.numpy()
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if self.last else pixels
        size = self.batch or len(pixels)
        parts = [self._run(pixels[start : start + size], size) for start in range(0, len(pixels), size)]
        return tuple(torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True))

    def _run(self, pixels: np.ndarray, size: int) -> list[np.ndarray]:
        padding = np.zeros((size - len(pixels), *pixels.shape[1:]), pixels.dtype)
        with runtime_refusals(self.path, _RUNTIME):
            outputs = self.session.run(None, {self.source: np.concatenate([pixels, padding])})
        for output in outputs:
            if not isinstance(output, np.ndarray) or not output.ndim or output.dtype.kind not in "fiu":
                raise Problem(self.path, "has an output that is no numbers for each image")
        return [output[: len(pixels)] for output in outputs]


def _session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    read(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal ones alone: errors arrive as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    with runtime_refusals(path, _RUNTIME):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)


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


def _names(path: Path, session: Any, metadata: Mapping[str, str]) -> dict[int, str] | str:
    """As the metadata tell of them, else placeholders."""
    if "names" in metadata:
        return metadata["names"]
    shape = session.get_outputs()[0].shape
    (bare,) = DEFAULT.final(HeadSpec(classes=1))
    others = bare.size - 1
    if len(shape) != bare.rank or not isinstance(shape[bare.axis], int) or shape[bare.axis] <= others:
        raise Problem(path, f"has no class names and an output of shape {shape}", expected="Ultralytics' metadata")
    return {index: f"class_{index}" for index in range(shape[bare.axis] - others)}
