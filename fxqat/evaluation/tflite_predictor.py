"""A .tflite file as evaluation sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fxqat.evaluation.predictor import Predictor
from fxqat.models.image_size import ImageSize
from fxqat.runtime.refusals import guarded
from fxqat.runtime.tflite.litert_session import Run, as_pixels, interpreter
from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_outputs import Outputs, head_of, outputs_of

_RUNTIME = "LiteRT"


def from_tflite(path: str | Path, *, threads: int | None = None) -> Predictor:
    """Load a .tflite file into LiteRT with XNNPACK, on the CPU.

    It may be Ultralytics' own, too: images (N, H, W, 3) or (N, 3, H, W), see ``fxqat.runtime.tflite.tflite_outputs``.
    Batches are split, and the last one is padded with zeros.

    Raises:
        Problem: the file is missing or no .tflite file, ai-edge-litert is missing, or it has more than one image input
            or no metadata of Ultralytics' form.
    """
    path = Path(path)
    file = TFLiteFile.read(path)
    head = head_of(path, file)
    outputs = outputs_of(file, head.family.final(head.spec))
    run = guarded(lambda: interpreter(file.content(), xnnpack=True, threads=threads or 1), path, _RUNTIME)
    return Predictor(
        name=path.name,
        predict=_Predict(run=run, kind=file.type(file.graph.inputs[0]), outputs=outputs),
        names=head.names,
        path=path,
        imgsz=ImageSize.of(outputs.shape[2:]),
        stride=head.stride,
        family=head.family,
        spec=head.spec,
    )


@dataclass(frozen=True, kw_only=True)
class _Predict:
    """Runs a file of a fixed batch over a batch of any size."""

    run: Run
    kind: str
    outputs: Outputs

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        size = self.outputs.shape[0]
        parts = [self._part(images[start : start + size].numpy()) for start in range(0, len(images), size)]
        return tuple(torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True))

    def _part(self, images: np.ndarray) -> list[np.ndarray]:
        padding = np.zeros((self.outputs.shape[0] - len(images), *images.shape[1:]), images.dtype)
        whole = np.concatenate([images, padding])
        found = self.run({"images": as_pixels(whole, self.kind) if self.outputs.is_last else whole})
        return [one[: len(images)] for one in self.outputs.read(found)]
