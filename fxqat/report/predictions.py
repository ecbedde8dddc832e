"""Predictions of one image as detections: boxes after non-maximum suppression, with masks, key points or angles where
the family has them, or the classes of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fxqat.evaluation.predictor import Predictor
from fxqat.models.family import FinalOutput
from fxqat.report.detections import Detection, iou

CONFIDENCE, OVERLAP, MOST = 0.25, 0.7, 300  # Ultralytics' defaults of predict
GUESSES = 5  # classes of a whole image that are shown


def covers(model: Predictor) -> str:
    """What detections of ``model`` cover, in words: ``boxes``, ``masks``; empty where they are of whole images."""
    main = model.final[0]
    if not main.has("boxes"):
        return ""
    return "masks" if main.has("masks") else "boxes"


@torch.no_grad()
def predict(model: Predictor, image: Tensor, *, confidence: float = CONFIDENCE) -> list[Detection]:
    """What ``model`` finds on one image (3, H, W) in 0..1, best first, as Ultralytics' predict does.

    Args:
        model: of any family.
        image: letterboxed or cropped as the family wants it.
        confidence: the least score of an object; the best class of a whole image has any.
    """
    y = model(image[None])
    return detections(model, y if isinstance(y, tuple) else (y,), image.shape[1:], confidence=confidence)


def detections(
    model: Predictor,
    outputs: Sequence[Tensor],
    shape: Sequence[int],
    *,
    confidence: float = CONFIDENCE,
    parts: bool = True,
) -> list[Detection]:
    """What the final ``outputs`` of ``model`` for one image say, see ``predict``.

    Args:
        model: see there.
        outputs: of a batch of one.
        shape: height and width of the image.
        confidence: see there.
        parts: with masks and key points.
    """
    main = model.final[0]
    if not main.has("boxes"):
        return [_class(main.scores(outputs[0])[0, :, 0])]
    rows = _rows(main, outputs[0], confidence)
    kept = rows if main.has("confidence") else rows.at(_suppressed(rows))
    masks = points = None
    if parts and main.has("masks"):
        masks = _masks(kept.part(main, "masks"), outputs[1][0], kept.boxes, shape)
    if parts and main.has("keypoints"):
        points = kept.part(main, "keypoints").unflatten(1, _point_shape(model)).numpy()
    return [
        Detection(
            index=int(kept.classes[row]),
            score=float(kept.scores[row]),
            box=_four(kept.boxes[row]),
            corners=tuple((float(x), float(y)) for x, y in kept.corners[row]) if kept.corners is not None else (),
            mask=masks[row] if masks is not None else None,
            points=points[row] if points is not None else None,
        )
        for row in range(len(kept.scores))
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """K candidates, best first: their boxes' corners (K, 4), scores (K,), classes (K,), all their numbers (K, C), and
    for turned boxes the corners (K, 4, 2)."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    numbers: Tensor
    corners: Tensor | None

    def at(self, chosen: Sequence[int]) -> _Rows:
        """Some of them."""
        rows = torch.tensor(chosen, dtype=torch.long)
        corners = None if self.corners is None else self.corners[rows]
        parts = (self.boxes[rows], self.scores[rows], self.classes[rows], self.numbers[rows])
        return _Rows(boxes=parts[0], scores=parts[1], classes=parts[2], numbers=parts[3], corners=corners)

    def part(self, output: FinalOutput, key: str) -> Tensor:
        """Their numbers called ``key``."""
        return self.numbers[:, output.slice(key)]


def _rows(output: FinalOutput, y: Tensor, confidence: float) -> _Rows:
    """The candidates in the final output ``y`` of one image."""
    numbers = y[0] if output.axis == 2 else y[0].T
    scores, classes = output.scores(y)[0].max(0)
    if output.has("class"):
        classes = numbers[:, output.slice("class")][:, 0].long()
    order = scores.argsort(descending=True, stable=True)
    chosen = order[scores[order] >= confidence]
    numbers = numbers[chosen]
    boxes, corners = numbers[:, output.slice("boxes")], None
    if output.has("angles"):
        corners = _corners(boxes, numbers[:, output.slice("angles")])
        boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    elif output.axis == 1:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        boxes = torch.cat([centre - half, centre + half], 1)
    return _Rows(boxes=boxes, scores=scores[chosen], classes=classes[chosen], numbers=numbers, corners=corners)


def _corners(boxes: Tensor, angles: Tensor) -> Tensor:
    """Of boxes (K, 4), centre and size, turned by angles (K, 1) in radians about their centres: (K, 4, 2), around."""
    across = boxes[:, 2:3] / 2 * torch.cat([angles.cos(), angles.sin()], 1)
    down = boxes[:, 3:4] / 2 * torch.cat([-angles.sin(), angles.cos()], 1)
    ends = [across + down, across - down, -across - down, down - across]
    return boxes[:, None, :2] + torch.stack(ends, 1)


def _suppressed(rows: _Rows) -> list[int]:
    """Those of the candidates that overlap no better one of their class by more than ``OVERLAP``."""
    from torchvision.ops import batched_nms  # type: ignore[import-untyped]

    if rows.corners is None:
        kept: Any = batched_nms(rows.boxes, rows.scores, rows.classes, OVERLAP)
        return [int(row) for row in kept[:MOST]]
    turned = [
        Detection(index=int(kind), score=0.0, corners=tuple(map(tuple, corners)))
        for kind, corners in zip(rows.classes, rows.corners.tolist(), strict=True)
    ]
    chosen: list[int] = []
    for row, one in enumerate(turned):
        rivals = (turned[other] for other in chosen if turned[other].index == one.index)
        if len(chosen) < MOST and all(iou(one, rival) <= OVERLAP for rival in rivals):
            chosen.append(row)
    return chosen


def _masks(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, shape: Sequence[int]) -> np.ndarray:
    """Masks (K, H, W) bool: where the sum of prototypes (M, h, w) by coefficients (K, M), enlarged to ``shape``, is
    above 0 within each one's box (YOLACT, arXiv 1904.02689, as Ultralytics' ``process_mask``)."""
    if not len(coefficients):
        return np.zeros((0, *shape), bool)
    sums = (coefficients @ prototypes.flatten(1)).unflatten(1, prototypes.shape[1:])
    large = interpolate(sums[None], tuple(shape), mode="bilinear")[0] > 0
    across, down = torch.arange(shape[1])[None, None], torch.arange(shape[0])[None, :, None]
    left, top, right, bottom = (boxes[:, side, None, None] for side in range(4))
    inside = (across >= left) & (across < right) & (down >= top) & (down < bottom)
    found: np.ndarray = (large & inside).numpy()
    return found


def _point_shape(model: Predictor) -> tuple[int, int]:
    """How many key points, and numbers for each."""
    assert model.spec is not None, "a family with key points says how many"
    return model.spec.keypoints


def _class(probabilities: Tensor) -> Detection:
    best = probabilities.argsort(descending=True, stable=True)[:GUESSES].tolist()
    first, *others = ((index, float(probabilities[index])) for index in best)
    return Detection(index=first[0], score=first[1], others=tuple(others))


def _four(box: Tensor) -> tuple[float, float, float, float]:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
