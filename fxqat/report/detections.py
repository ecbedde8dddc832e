"""What a model finds on an image, and how two models agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SAME = 0.5  # IoU from which two predictions of one class are the same object

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One object on an image, or the class of a whole one; places are in pixels of the network's input.

    Attributes:
        box: left, top, right, bottom; of a turned box those of its corners. None for the class of a whole image.
        index: of the class.
        score: 0..1.
        corners: of a turned box, in order around it.
        mask: (H, W) bool, the pixels of the object.
        points: key points (K, 2 or 3): x, y, and the visibility 0..1.
        others: further classes of a whole image with their probabilities, best first.
    """

    index: int
    score: float
    box: tuple[float, float, float, float] | None = None
    corners: tuple[Point, ...] = ()
    mask: np.ndarray | None = None
    points: np.ndarray | None = None
    others: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two models on the same images.

    Attributes:
        images: how many.
        before: detections of the first.
        after: of the second.
        kept: of the first, those that the second has too.
        shift: mean change of their scores.
        overlap: mean IoU of what they cover.
        covers: what that is: ``boxes``, ``masks``; empty for classes of whole images.
    """

    images: int = 0
    before: int = 0
    after: int = 0
    kept: int = 0
    shift: float = 0.0
    overlap: float = 0.0
    covers: str = "boxes"

    @property
    def added(self) -> int:
        """Detections that only the second has."""
        return self.after - self.kept

    def __add__(self, other: Agreement) -> Agreement:
        """On the images of both."""
        kept = self.kept + other.kept
        shares = (self.kept / kept, other.kept / kept) if kept else (0.0, 0.0)
        return Agreement(
            images=self.images + other.images,
            before=self.before + other.before,
            after=self.after + other.after,
            kept=kept,
            shift=shares[0] * self.shift + shares[1] * other.shift,
            overlap=shares[0] * self.overlap + shares[1] * other.overlap,
            covers=self.covers,
        )


Pair = tuple[Sequence[Detection], Sequence[Detection]]


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
    """Intersection over union: of masks, of turned boxes, or of boxes, whichever both have; 1 of whole images."""
    if a.mask is not None and b.mask is not None:
        return _ratio(float((a.mask & b.mask).sum()), float(a.mask.sum()), float(b.mask.sum()))
    if a.corners and b.corners:
        return _turned(np.array(a.corners, np.float32), np.array(b.corners, np.float32))
    if a.box is None or b.box is None:
        return float(a.box is b.box)
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    return _ratio(max(width, 0.0) * max(height, 0.0), _area(a.box), _area(b.box))


def agreement(found: Sequence[Pair], covers: str = "boxes") -> Agreement:
    """How two models agree over images, from what each found on each."""
    kept = [(one, other) for before, after in found for one, other in paired(before, after) if other is not None]
    return Agreement(
        images=len(found),
        before=sum(len(before) for before, _ in found),
        after=sum(len(after) for _, after in found),
        kept=len(kept),
        shift=sum(other.score - one.score for one, other in kept) / len(kept) if kept else 0.0,
        overlap=sum(iou(one, other) for one, other in kept) / len(kept) if kept else 0.0,
        covers=covers,
    )


def _turned(a: np.ndarray, b: np.ndarray) -> float:
    """Of two convex quadrangles, (4, 2)."""
    inside, _ = cv2.intersectConvexConvex(a, b)
    return _ratio(float(inside), float(cv2.contourArea(a)), float(cv2.contourArea(b)))


def _ratio(inside: float, a: float, b: float) -> float:
    union = a + b - inside
    return inside / union if union > 0 else 0.0


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
