"""How sure a difference in mAP is: a paired bootstrap over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy
from fxqat.evaluation.metrics import Matches

RECALLS = np.linspace(0, 1, 101)  # COCO's points, where Ultralytics reads the precision-recall curve
Statistic = Callable[[np.ndarray], float]
EPS = 1e-16  # as ap_per_class adds it to the number of labels


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The metric of the second model less that of the first, in points (1 point = 0.01 of mAP50-95 or a share).

    ``low`` and ``high`` bound the central ``level`` of the differences over ``resamples`` resampled image sets.
    ``changed`` of the ``images`` have other hits than before: so many labels that are found, at each IoU.
    """

    points: float
    low: float
    high: float
    level: float
    resamples: int
    images: int
    changed: int

    def images_for(self, width: float) -> int:
        """About how many such images give an interval of ``width`` points: it narrows with the root of their number."""
        exact = self.images * ((self.high - self.low) / width) ** 2
        return math.ceil(round(exact, 6))  # one more image is not the last bit's to ask for

    def __str__(self) -> str:
        return f"{self.points:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


class Curves:
    """mAP50-95 of one model for any weighting of its images, equal to Ultralytics' ``ap_per_class`` on copied images.

    Only true positives matter to an average precision: between two of them recall stands still while precision
    falls, so the curve's envelope is set at the true positives, and false positives count by their number alone.
    There are some hundred times fewer true positives than detections, which makes a thousand resamples cheap.

    Args:
        accuracy: a model's matches, image by image.
    """

    def __init__(self, accuracy: Accuracy) -> None:
        matches = accuracy.matches
        targets = [match.target_cls.astype(int) for match in matches]
        self.classes = np.unique(np.concatenate(targets))
        self.labels = np.stack([np.bincount(t, minlength=self.classes[-1] + 1)[self.classes] for t in targets])
        tp = np.concatenate([match.tp for match in matches])
        predicted = np.concatenate([match.pred_cls for match in matches])
        image = np.repeat(np.arange(len(matches)), [len(match.conf) for match in matches])
        order = np.argsort(-np.concatenate([match.conf for match in matches]))  # Ultralytics' sort, ties and all
        order = order[np.isin(predicted[order], self.classes)]
        column = np.searchsorted(self.classes, predicted[order])
        by_class = np.argsort(column, kind="stable")
        order, column = order[by_class], column[by_class]
        self.image = image[order]  # of each detection, sorted by class, then by falling confidence
        self.start = np.searchsorted(column, np.arange(len(self.classes)))
        self._find_hits(tp[order], column)
        self._grids: dict[int, np.ndarray] = {}

    def _find_hits(self, tp: np.ndarray, column: np.ndarray) -> None:
        """List the true positives, curve by curve (class by class, IoU by IoU), in falling confidence."""
        thresholds = tp.shape[1]
        threshold, hit = np.nonzero(tp.T)
        curve = column[hit] * thresholds + threshold
        by_curve = np.argsort(curve, kind="stable")
        self.hit, self.curve = hit[by_curve], curve[by_curve]
        self.thresholds = thresholds
        self.hit_start = self.start[self.curve // thresholds]
        self.first = np.searchsorted(self.curve, np.arange(len(self.classes) * thresholds + 1))

    def map5095(self, weights: np.ndarray) -> float:
        """Mean average precision, 0..1, with image i counted ``weights[i]`` times (integers, shape (images,))."""
        labels = weights @ self.labels
        present = labels > 0
        if not present.any():
            return 0.0
        ap = self._ap(weights, labels).reshape(len(self.classes), self.thresholds)
        return float(ap[present].mean())

    def _ap(self, weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Average precision of each curve, shape (classes * thresholds,)."""
        hits, misses, bounds = self._count(weights)
        precision = hits / (hits + misses)
        total = np.repeat(labels, self.thresholds)
        reached = np.minimum(np.repeat(self._grid(labels), self.thresholds, axis=0), np.diff(bounds)[:, None])
        upper = _envelope(precision, bounds, reached)
        curve = _read(precision, misses, bounds, reached, upper, total)
        return np.asarray((np.diff(RECALLS) * (curve[:, 1:] + curve[:, :-1]) / 2.0).sum(1))

    def _count(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each copy of each true positive: hits so far with itself, misses so far; and where each curve begins."""
        detections = np.concatenate([[0], np.cumsum(weights[self.image])])
        copies = weights[self.image[self.hit]]
        done = np.concatenate([[0], np.cumsum(copies)])
        bounds = done[self.first]
        before = done[:-1] - bounds[self.curve]
        misses = detections[self.hit] - detections[self.hit_start] - before
        hits = np.arange(1, done[-1] + 1) - np.repeat(bounds[self.curve], copies)
        return hits, np.repeat(misses, copies), bounds

    def _grid(self, labels: np.ndarray) -> np.ndarray:
        """For each class and recall point: how many hits lie at or below that recall; shape (classes, 101)."""
        for count in set(labels.tolist()) - self._grids.keys():
            recall = np.arange(1, count + 1) / (count + EPS)
            self._grids[count] = np.searchsorted(recall, RECALLS, side="right")
        return np.stack([self._grids[count] for count in labels.tolist()])


def _envelope(precision: np.ndarray, bounds: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The highest precision from hit number ``reached`` to the curve's end, 0 past it; shape as ``reached``."""
    at = bounds[:-1, None] + reached
    # Each part runs to the next point's first hit, a row's last part to the next curve; an empty part gives the
    # element it stands at, which the suffix holds anyway.
    parts = np.maximum.reduceat(np.append(precision, 0.0), at.reshape(-1)).reshape(at.shape)
    parts[at == bounds[1:, None]] = 0.0
    return np.asarray(np.maximum.accumulate(parts[:, ::-1], axis=1)[:, ::-1])


def _read(
    precision: np.ndarray,
    misses: np.ndarray,
    bounds: np.ndarray,
    reached: np.ndarray,
    upper: np.ndarray,
    total: np.ndarray,
) -> np.ndarray:
    """Precision at the 101 recalls, shape (curves, 101): ``numpy.interp`` along the envelope, in its own arithmetic."""
    at = bounds[:-1, None] + reached
    inside = at < bounds[1:, None]
    precision, misses = np.append(precision, 0.0), np.append(misses, 0)
    here = np.where(inside, at, 0)
    before = np.where(inside & (reached > 0), at - 1, -1)
    gap = misses[here] > np.where(reached > 0, misses[before], 0)
    left = np.where(gap, upper, np.where(reached > 0, np.maximum(precision[before], upper), 1.0))
    labels = np.maximum(total, 1)[:, None] + EPS
    low, high = reached / labels, (reached + 1) / labels
    curve = (upper - left) / (high - low) * (RECALLS - low) + left
    return np.where(inside, curve, 0.0)


def paired_drift(a: Accuracy, b: Accuracy, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Drift:
    """The drift of the deciding metric from ``a`` to ``b`` with a percentile bootstrap interval.

    Each resample draws as many images as there are, with replacement, and scores both models on the same draw (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): what makes an image hard is common to both
    and cancels.

    Raises:
        Problem: the two were not measured on the same images.
    """
    _check_same_images(a, b)
    statistic = _STATISTICS[a.metric.statistic]
    first, second = statistic(a), statistic(b)
    draws = _draws(a.images, resamples, seed)
    differences = [second(weights) - first(weights) for weights in draws]
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Drift(
        points=100 * (b.map5095 - a.map5095),
        low=100 * float(low),
        high=100 * float(high),
        level=level,
        resamples=resamples,
        images=a.images,
        changed=sum(_hits(one) != _hits(other) for one, other in zip(a.matches, b.matches, strict=True)),
    )


def _hits(match: Matches) -> list[int]:
    """How many labels of an image are found, at each IoU."""
    counts: list[int] = match.tp.sum(axis=0).tolist()
    return counts


def _average_precision(accuracy: Accuracy) -> Statistic:
    return Curves(accuracy).map5095


def _share(accuracy: Accuracy) -> Statistic:
    """The share of images that are right."""
    right = np.array([bool(match.tp[0, 0]) for match in accuracy.matches], dtype=float)
    return lambda weights: float(weights @ right / weights.sum())


# How a metric follows from images that are counted so many times, by ``Metric.statistic``.
_STATISTICS: dict[str, Callable[[Accuracy], Statistic]] = {
    "average precision": _average_precision,
    "share": _share,
}


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, images, images), minlength=images)


def _check_same_images(a: Accuracy, b: Accuracy) -> None:
    if [match.image for match in a.matches] == [match.image for match in b.matches]:
        return
    counts = f"was measured on {b.images} images, {a.model} on {a.images} others"
    raise Problem(b.model, counts, expected="the same data set, split and limit for both")
