"""Divergence of detectors' raw outputs from the float detector's, on the same images.

It needs no labels, and its standard error is small enough to compare detectors whose mAP differs by less than chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fxqat.data import images
from fxqat.models.detector import Detector
from fxqat.models.image_size import SizeLike
from fxqat.models.links import divergence

_BATCH = 8


class FloatOutputs:
    """The raw outputs of the float detector on chosen images, for comparison with other detectors.

    Args:
        detector: the float one.
        data: data set YAML; labels are not read.
        count: images of the split; None for all.
        imgsz: one side, or height and width.
        split: of the data.
    """

    def __init__(
        self, detector: Detector, data: str | Path, *, count: int | None, imgsz: SizeLike, split: str = "val"
    ) -> None:
        self.data, self.count, self.imgsz, self.split = data, count, imgsz, split
        self.outputs = detector.compared
        self.wanted = list(self._raw(detector))

    def of(self, detector: Detector) -> Tensor:
        """The divergence of ``detector`` from the float one (see ``fxqat.models.links``): nats, shape (images,)."""
        pairs = zip(self.wanted, self._raw(detector), strict=True)
        return torch.cat([divergence(self.outputs, *pair) for pair in pairs])

    @torch.no_grad()
    def _raw(self, detector: Detector) -> Iterator[Any]:
        chosen = images.image_paths(self.data, split=self.split, limit=self.count)
        for batch in images.batches(chosen, self.imgsz, _BATCH, fit=detector.fit):
            yield detector(batch)[1]


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of ``values``, shape (n,)."""
    return float(values.std()) / len(values) ** 0.5


def summary(found: Tensor) -> dict[str, Any]:
    """Mean and standard error over images, ready for JSON."""
    return {"mean": float(found.mean()), "standard_error": standard_error(found), "images": len(found)}


def shown(plain: dict[str, Any]) -> str:
    """The text of a summary in a table: mean ± standard error."""
    return f"{plain['mean']:.4f} ± {plain['standard_error']:.4f}"
