"""Ultralytics' validator, made independent of the machine's speed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fxqat.yolo import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.models.yolo.detect import DetectionValidator


class SquareValidator(DetectionValidator):
    """Ultralytics' validator with non-maximum suppression image by image: over a batch it stops at a time limit, so
    that a slow machine would measure a lower accuracy."""

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Detections of each image."""
        boxes = preds[0] if isinstance(preds, tuple | list) else preds
        return [found for one in boxes.split(1) for found in super(SquareValidator, self).postprocess(one)]
