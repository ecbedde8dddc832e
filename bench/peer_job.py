"""What every tool of bench.peers is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fxqat.data import images


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every tool is given, and the folder it writes to. ``float_onnx`` is Ultralytics' FP32 file."""

    weights: Path
    calibration: Path
    folder: Path
    float_onnx: Path
    imgsz: int = 640
    images: int = 128

    def batches(self) -> Iterator[np.ndarray]:
        """Calibration images, (1, 3, imgsz, imgsz) float32 in 0..1."""
        found = images.image_paths(self.calibration, limit=self.images)
        return (batch.numpy() for batch in images.batches(found, self.imgsz, 1, lambda path, why: None))
