"""What a detector finds on an image, and how two detectors agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxqat.evaluation.predictor import Predictor

CONFIDENCE, OVERLAP, MOST = 0.25, 0.7, 300  # Ultralytics' defaults of predict
SAME = 0.5  # IoU from which two boxes of one class are the same object


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A box (left, top, right, bottom) in pixels of the network's input, a class, a score 0..1."""

    box: tuple[float, float, float, float]
    index: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two detectors on the same images.

    Attributes:
        images: how many.
        before: detections of the first.
        after: of the second.
        kept: of the first, those that the second has too.
        shift: mean change of their scores.
        overlap: mean IoU of their boxes.
    """

    images: int = 0
    before: int = 0
    after: int = 0
    kept: int = 0
    shift: float = 0.0
    overlap: float = 0.0

    @property
    def added(self) -> int:
        """Detections that only the second has."""
        return self.after - self.kept


@torch.no_grad()
def detect(model: Predictor, image: Tensor, *, confidence: float = CONFIDENCE) -> list[Detection]:
    """Detections in one image (3, H, W) in 0..1, best first, after non-maximum suppression class by class.

    Args:
        model: of a family with boxes.
        image: letterboxed.
        confidence: the least score.
    """
    from torchvision.ops import batched_nms  # type: ignore[import-untyped]

    y = model(image[None])
    output, y = model.final[0], y[0] if isinstance(y, tuple) else y
    scores, classes = output.scores(y)[0].max(0)
    likely = scores >= confidence
    scores, classes = scores[likely], classes[likely]
    found_boxes = output.boxes(y)
    assert found_boxes is not None
    rows = found_boxes[0].T[likely]
    centre, half = rows[:, :2], rows[:, 2:] / 2
    boxes = torch.cat([centre - half, centre + half], 1)
    kept: Any = batched_nms(boxes, scores, classes, OVERLAP)[:MOST]
    found = zip(boxes[kept].tolist(), classes[kept].tolist(), scores[kept].tolist(), strict=True)
    return [Detection(box=tuple(box), index=index, score=score) for box, index, score in found]


def paired(before: Sequence[Detection], after: Sequence[Detection]) -> list[tuple[Detection, Detection | None]]:
    """Each detection of ``before``, best first, with the one of ``after`` of its class that overlaps it most, if any
    does by ``SAME`` and is not another's."""
    free, pairs = list(after), list[tuple[Detection, Detection | None]]()
    for one in before:
        near = [other for other in free if other.index == one.index and iou(one, other) >= SAME]
        best = max(near, key=lambda other: iou(one, other), default=None)
        if best is not None:
            free.remove(best)
        pairs.append((one, best))
    return pairs


def iou(a: Detection, b: Detection) -> float:
    """Intersection over union."""
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    inside = max(width, 0.0) * max(height, 0.0)
    union = _area(a) + _area(b) - inside
    return inside / union if union > 0 else 0.0


def agreement(found: Sequence[tuple[Sequence[Detection], Sequence[Detection]]]) -> Agreement:
    """How two detectors agree over images, from what each found on each."""
    kept = [(one, other) for before, after in found for one, other in paired(before, after) if other is not None]
    return Agreement(
        images=len(found),
        before=sum(len(before) for before, _ in found),
        after=sum(len(after) for _, after in found),
        kept=len(kept),
        shift=sum(other.score - one.score for one, other in kept) / len(kept) if kept else 0.0,
        overlap=sum(iou(one, other) for one, other in kept) / len(kept) if kept else 0.0,
    )


def _area(one: Detection) -> float:
    return (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
