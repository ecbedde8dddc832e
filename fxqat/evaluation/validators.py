"""Ultralytics' detection validator, independent of the machine's speed, and one around a plain prediction function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.models.yolo.detect import DetectionValidator


class SquareValidator(DetectionValidator):
    """Ultralytics' validator with non-maximum suppression image by image: over a batch it stops at a time limit and
    leaves the rest without detections, so that a slow machine would measure a lower accuracy.

    Attributes:
        statistics: of the newest validation, one entry an image under each of Ultralytics' names; Ultralytics clears
            its own.
    """

    statistics: dict[str, list[Any]]

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Detections of each image."""
        boxes = preds[0] if isinstance(preds, tuple | list) else preds
        return [found for one in boxes.split(1) for found in super(SquareValidator, self).postprocess(one)]

    def get_stats(self) -> dict[str, Any]:
        """Ultralytics' metrics."""
        self.statistics = {key: list(values) for key, values in self.metrics.stats.items()}
        found: dict[str, Any] = super().get_stats()
        return found


class ImageValidator(SquareValidator):
    """Ultralytics' data set, preprocessing, NMS, matching and metrics, with a loop of our own.

    Ultralytics' loop wants an AutoBackend, copies the model, reports to its analytics and looks for a font on the
    network; a prediction function needs none of that.

    Args:
        root: folder with ``images/`` and ``labels/`` and room for Ultralytics' label cache.
        names: class names by index.
        imgsz: pixels, square.
        batch: images at a time.
    """

    def __init__(self, root: Path, names: dict[int, str], *, imgsz: int, batch: int) -> None:
        super().__init__(save_dir=root / "runs", args=_arguments(imgsz, batch))
        self.training, self.device, self.stride = False, torch.device("cpu"), 32
        self.names = names
        self.data = {"val": str(root / "images"), "names": names, "nc": len(names), "channels": 3}
        self.dataloader = self.get_dataloader(self.data["val"], batch)

    @property
    def files(self) -> list[Path]:
        """The image files Ultralytics accepted, in the order of evaluation."""
        return [Path(name) for name in self.dataloader.dataset.im_files]

    def run(self, predict: Callable[[Tensor], Tensor], progress: Callable[[int, int], None]) -> dict[str, list[Any]]:
        """Evaluate every image and return Ultralytics' statistics, one entry an image; metrics are in ``metrics``.

        Args:
            predict: images (N, 3, imgsz, imgsz) in 0..1 to y (N, 4 + nc, A).
            progress: called with images done and images in all.
        """
        self.init_metrics(SimpleNamespace(names=self.names, end2end=False))
        for batch in self.dataloader:
            batch = self.preprocess(batch)
            self.update_metrics(self.postprocess(predict(batch["img"])), batch)
            progress(self.seen, len(self.dataloader.dataset))
        self.get_stats()
        return self.statistics


def _arguments(imgsz: int, batch: int) -> dict[str, Any]:
    return {
        "task": "detect",
        "mode": "val",
        "imgsz": imgsz,
        "batch": batch,
        "rect": False,
        "workers": 0,
        "plots": False,
        "save_json": False,
        "val": False,  # Ultralytics' final evaluation by COCO's own tool, which needs annotation files
        "device": "cpu",
    }
