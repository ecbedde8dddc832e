"""What validation during training computes with: the runtime that the detector is for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fxqat.analyze.evaluated import from_onnx
from fxqat.deploy.executed import in_integers, lowered
from fxqat.deploy.onnx import export
from fxqat.passes import Rules
from fxqat.yolo.detector import Detector

Predict = Callable[[Tensor], Tensor]
# An export takes as long as a dozen images of 640 x 640 pixels in torch's integers, each 10 times as long as in ONNX
# Runtime. Both give the same codes.
WORTH_AN_EXPORT = 12 * 640**2


def runtime(detector: Detector, *, images: int, imgsz: int) -> Predict | None:
    """What the file exported from ``detector`` predicts: images (B, 3, imgsz, imgsz) in 0..1 give (B, 4 + nc, A).

    On a CPU, for more than a few images, it is that file in ONNX Runtime; else its integers in torch. None where
    the runtime's arithmetic is not known, see ``fxqat.deploy.executed``.

    Args:
        detector: as it is now; later changes are not seen.
        images: how many are to come.
        imgsz: pixels.
    """
    int8 = lowered(detector, Rules.load())
    if int8 is None:
        return None
    on_cpu = next(detector.parameters()).device.type == "cpu"
    if on_cpu and images * imgsz**2 > WORTH_AN_EXPORT:
        return _file(int8, imgsz)
    return in_integers(int8).run


def _file(int8: Detector, imgsz: int) -> Predict:
    with tempfile.TemporaryDirectory(prefix="fxqat-train-") as folder:
        path = export(int8, Path(folder) / "epoch.onnx", imgsz=imgsz)
        return from_onnx(path, threads=torch.get_num_threads())
