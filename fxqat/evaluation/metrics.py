"""What a validation measured: metrics, and the matches of single images that they follow from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fxqat.models.families import DEFAULT
from fxqat.models.family import Family, Metric


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """How one image's detections met its labels, as Ultralytics matched them.

    ``tp`` (P, 10) bool: detection p is right at IoU 0.50, 0.55 .. 0.95. ``conf`` and ``pred_cls`` (P,);
    ``target_cls`` (T,): the classes of the labels.
    """

    image: Path
    tp: np.ndarray
    conf: np.ndarray
    pred_cls: np.ndarray
    target_cls: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """One class that has labels: average precision over IoU 0.50 to 0.95, and at 0.50; both 0..1."""

    index: int
    name: str
    boxes: int
    ap: float
    ap50: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """Ultralytics' metrics, 0..1, and what they were computed from.

    Attributes:
        model: its name.
        map5095: mAP50-95, or what else decides in the task; see ``metric``.
        map50: mAP50, or what else stands beside it.
        precision: mean over classes at the confidence that maximises the mean F1; likewise ``recall``.
        images: how many.
        boxes: labels in all.
        classes: those that have labels.
        matches: image by image.
        skipped: each image that was left out, and why.
        metric: what was measured, in its family's words.
        others: the same of the task's other metrics, such as boxes beside masks.
    """

    model: str
    map5095: float
    map50: float
    precision: float
    recall: float
    images: int
    boxes: int
    classes: tuple[ClassAccuracy, ...]
    matches: tuple[Matches, ...]
    skipped: tuple[tuple[Path, str], ...]
    metric: Metric = DEFAULT.metric
    others: tuple[Accuracy, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Everything but the matches, ready for JSON."""
        plain = ("model", "map5095", "map50", "precision", "recall", "images", "boxes")
        return {
            **{key: getattr(self, key) for key in plain},
            "classes": {item.name: {"boxes": item.boxes, "ap": item.ap, "ap50": item.ap50} for item in self.classes},
            "skipped": [{"image": str(path), "why": why} for path, why in self.skipped],
            **({"metric": self.metric.key} if self.metric is not DEFAULT.metric else {}),
            **({"others": [other.summary() for other in self.others]} if self.others else {}),
        }


def _matches(paths: Sequence[Path], statistics: Mapping[str, list[Any]], right: str) -> tuple[Matches, ...]:
    columns = zip(*(statistics[key] for key in (right, "conf", "pred_cls", "target_cls")), strict=True)
    return tuple(
        Matches(image=path, tp=tp, conf=conf, pred_cls=predicted, target_cls=target)
        for path, (tp, conf, predicted, target) in zip(paths, columns, strict=True)
    )


def from_statistics(
    name: str,
    metrics: Any,
    names: Mapping[int, str],
    paths: Sequence[Path],
    statistics: Mapping[str, list[Any]],
    skipped: tuple[tuple[Path, str], ...] = (),
    family: Family = DEFAULT,
) -> Accuracy:
    """What a validator of Ultralytics' measured.

    Args:
        name: of the model.
        metrics: the validator's, after it is done.
        names: class names by index.
        paths: of the images, in the order of evaluation.
        statistics: one entry an image under each of Ultralytics' names.
        skipped: images that were left out, and why.
        family: of the model.
    """
    first, *others = [_of_metric(one, name, metrics, names, paths, statistics, skipped) for one in family.metrics]
    return replace(first, others=tuple(others))


def _of_metric(
    metric: Metric,
    name: str,
    metrics: Any,
    names: Mapping[int, str],
    paths: Sequence[Path],
    statistics: Mapping[str, list[Any]],
    skipped: tuple[tuple[Path, str], ...],
) -> Accuracy:
    matches = _matches(paths, statistics, metric.matches)
    box, labels = getattr(metrics, metric.part), metrics.nt_per_class
    classes = [
        ClassAccuracy(index=int(c), name=names[int(c)], boxes=int(labels[c]), ap=float(ap), ap50=float(ap50))
        for c, ap, ap50 in zip(box.ap_class_index, box.ap, box.ap50, strict=True)
    ]
    return Accuracy(
        model=name,
        map5095=float(box.map),
        map50=float(box.map50),
        precision=float(box.mp),
        recall=float(box.mr),
        images=len(matches),
        boxes=int(labels.sum()),
        classes=tuple(classes),
        matches=matches,
        skipped=skipped,
        metric=metric,
    )
