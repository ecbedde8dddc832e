"""A .tflite file as evaluation sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxqat.errors import Problem
from fxqat.evaluation.predictor import Predictor
from fxqat.models.families import DEFAULT
from fxqat.models.image_size import ImageSize
from fxqat.runtime.litert_session import Run, are_boxes_and_scores, as_pixels, in_pixels, interpreter
from fxqat.runtime.refusals import guarded
from fxqat.runtime.tflite_file import TFLiteFile

_RUNTIME = "LiteRT"


def from_tflite(path: str | Path, *, threads: int = 1) -> Predictor:
    """Load a .tflite detector into LiteRT with XNNPACK, on the CPU.

    It may be Ultralytics' own, too: images (N, H, W, 3) or (N, 3, H, W), boxes as parts of the image's size. Batches
    are split, and the last one is padded with zeros.

    Raises:
        Problem: the file is missing or no .tflite file, ai-edge-litert is missing, or it is no detector with one image
            input, Ultralytics' metadata, and NMS to follow.
    """
    path = Path(path)
    file = TFLiteFile.read(path)
    kind, shape = _input(path, file)
    predict = _Predict(
        run=guarded(lambda: interpreter(file.content(), xnnpack=True, threads=threads), path, _RUNTIME),
        kind=kind,
        shape=shape,
        is_last=file.shape(file.graph.inputs[0])[-1] == 3,
    )
    names, size = _names(path, file.metadata), ImageSize.of(shape[2:])
    return Predictor(name=path.name, predict=predict, names=names, path=path, imgsz=size)


def _input(path: Path, file: TFLiteFile) -> tuple[str, tuple[int, ...]]:
    """The type of the only input and its sizes as (N, 3, H, W)."""
    shapes = [file.shape(index) for index in file.graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or 3 not in (shapes[0][1], shapes[0][3]):
        raise Problem(path, f"takes {shapes}", expected="one image input, (N, H, W, 3) or (N, 3, H, W)")
    ((batch, *sizes),) = shapes
    return file.type(file.graph.inputs[0]), (batch, 3, *map(int, sizes[:2] if sizes[-1] == 3 else sizes[1:]))


def _names(path: Path, metadata: Mapping[str, Any]) -> dict[int, str]:
    if metadata.get("task") != DEFAULT.task or not isinstance(metadata.get("names"), dict):
        raise Problem(path, "does not say what it detects", expected="Ultralytics' metadata of a detector")
    try:
        names = {int(index): str(name) for index, name in metadata["names"].items()}
    except ValueError as error:
        raise Problem(path, "its metadata 'names' is no mapping of numbers to names") from error
    spec = DEFAULT.described({key: str(value) for key, value in metadata.items()}, len(names), [])
    if not are_boxes_and_scores(DEFAULT.final(spec)):
        raise Problem(path, "predicts without NMS", expected="a detector that predicts boxes and scores")
    return names


@dataclass(frozen=True, kw_only=True)
class _Predict:
    """Runs a file of a fixed batch over a batch of any size."""

    run: Run
    kind: str
    shape: tuple[int, ...]
    is_last: bool

    def __call__(self, images: Tensor) -> Tensor:
        size = self.shape[0]
        parts = [self._part(images[start : start + size].numpy()) for start in range(0, len(images), size)]
        return torch.from_numpy(np.concatenate(parts))

    def _part(self, images: np.ndarray) -> np.ndarray:
        padding = np.zeros((self.shape[0] - len(images), *images.shape[1:]), images.dtype)
        whole = np.concatenate([images, padding])
        (output, *_) = self.run({"images": as_pixels(whole, self.kind) if self.is_last else whole})
        return in_pixels(output, self.shape)[: len(images)]
