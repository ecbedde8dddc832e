"""How far a detector's predictions are from the float one's, image by image and without labels.

Where mAP moves by tenths of a point by chance this is smooth, but it is no promise of mAP: on YOLOv8n a layout that
disagreed less (4.6 % against 5.8 %) lost more points (0.74 against 0.29). So whatever it chooses is validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fxqat.evaluation.predictor import BOX

LEAST = 0.1  # confidence: below, a prediction hardly moves an average precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Confident:
    """What a detector is sure of: K anchors, before suppression.

    Attributes:
        image: int64 (K,), index in the batch.
        kind: int64 (K,), the class of the best score.
        anchor: int64 (K,).
        boxes: (4, K), centre x, centre y, width, height in pixels.
        scores: (K,), 0..1.
    """

    image: Tensor
    kind: Tensor
    anchor: Tensor
    boxes: Tensor
    scores: Tensor


def confident(y: Tensor, least: float = LEAST) -> Confident:
    """The anchors of ``y`` (N, 4 + nc, A) whose best class has at least ``least``."""
    best, kinds = y[:, BOX:].max(1)
    image, anchor = torch.nonzero(best >= least, as_tuple=True)
    return Confident(
        image=image,
        kind=kinds[image, anchor],
        anchor=anchor,
        boxes=y[image, :BOX, anchor].T,
        scores=best[image, anchor],
    )


def disagreement(first: Confident, y: Tensor) -> tuple[float, float]:
    """What ``y`` (N, 4 + nc, A) makes of the same anchors: a weighted sum and its weight. Their ratio over all images
    is the disagreement, 0 (the same) to 1::

        sum of s (1 - IoU(b, b') (1 - |s - s'|)) / sum of s

    with s the first detector's confidence in a class, b its box there, s' and b' the other's.
    """
    boxes = y[first.image, :BOX, first.anchor].T
    scores = y[first.image, BOX + first.kind, first.anchor]
    same = overlap(first.boxes, boxes) * (1 - (scores - first.scores).abs())
    return float((first.scores * (1 - same)).sum()), float(first.scores.sum())


def ratio(parts: Sequence[tuple[float, float]]) -> float:
    """The disagreement over several batches."""
    weight = sum(part[1] for part in parts)
    return sum(part[0] for part in parts) / weight if weight else 0.0


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU, pair by pair, of boxes (4, K): centre x, centre y, width, height."""
    sides = [
        (
            torch.minimum(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2)
            - torch.maximum(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2)
        )
        for i in (0, 1)
    ]
    common = sides[0].clamp(min=0) * sides[1].clamp(min=0)
    return common / (a[2] * a[3] + b[2] * b[3] - common).clamp(min=1e-12)
