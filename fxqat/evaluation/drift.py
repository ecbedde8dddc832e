"""What each stage of the way to a file does to accuracy: mAP, confidence, recall at a threshold, class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fxqat.checkpoint.model_io import load
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, evaluate
from fxqat.evaluation.bootstrap import Drift, paired_drift
from fxqat.evaluation.exported_file import from_file, runtime_title
from fxqat.evaluation.predictor import Predictor
from fxqat.models.detector import Detector
from fxqat.models.image_size import DEFAULT_SIZE, SizeLike
from fxqat.passes.selective import asleep
from fxqat.runtime.exporters import suffix_of
from fxqat.runtime.integer_model import predictor
from fxqat.workflow.convert import convert, export
from fxqat.workflow.stage_checks import expect_calibrated

IOU50 = 0  # column of Matches.tp
RESAMPLES = 1000
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What became of the first stage's confident predictions, anchor by anchor, before suppression.

    Attributes:
        predictions: anchors whose best class had at least the threshold in the first stage.
        mean: of the change of that class's score.
        low: its 5th percentile.
        high: its 95th.
        lost: share that fell below the threshold, 0..1.
    """

    predictions: int
    mean: float
    low: float
    high: float
    lost: float


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Labels found at IoU 0.5 with at least the threshold's confidence.

    Attributes:
        recall: share of the labels, 0..1.
        precision: share of such detections that are right, 0..1.
        points: recall less the first stage's, in points; None for the first.
        low: lower end of the 95 % paired bootstrap interval over images.
        high: upper end.
    """

    recall: float
    precision: float
    points: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage, measured; ``drift`` and ``shift`` are against the first, and None there."""

    name: str
    accuracy: Accuracy
    drift: Drift | None
    recall: Recall
    shift: Shift | None

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        parts = {"drift": self.drift, "shift": self.shift, "recall": self.recall}
        return {
            "stage": self.name,
            **self.accuracy.summary(),
            **{key: asdict(part) if part is not None else None for key, part in parts.items()},
        }


def stages(
    model: Detector, folder: Path, *, imgsz: SizeLike, source: str | Path | None = None, trust: bool = False
) -> list[Predictor]:
    """The stages of a calibrated or trained detector, from float to its target's runtime; the file is exported to
    ``folder``, see ``runtime_file``.

    ``float`` is ``source`` as Ultralytics' checkpoint has it, where it is given; ``fused`` is the model's own network
    with every quantizer off, which after training is not the same. ``fake-quant`` rounds in float32, ``reference``
    computes in the runtime's integers where they are known.

    Raises:
        Problem: never calibrated, or ``source`` cannot be loaded.
    """
    expect_calibrated(model, "drift")
    found = list[Predictor]()
    if source is not None:
        plain = load(source, trust=trust)
        if plain.stage != "float":
            raise Problem(source, f"is at stage {plain.stage}", expected="the .pt it was prepared from")
        found.append(Predictor.of(plain, lambda images: plain(images)[0], name="float"))
    int8, _ = convert(model)
    path = export(int8, runtime_file(model, folder), imgsz=imgsz)
    return [
        *found,
        Predictor.of(model, lambda images: _off(model, images), name="fused"),
        Predictor.of(model, lambda images: model(images)[0], name="fake-quant"),
        Predictor.of(model, predictor(int8), name="reference"),
        replace(from_file(path), name=runtime_title(path)),
    ]


def runtime_file(model: Detector, folder: Path) -> Path:
    """The file of the last stage."""
    return folder / f"runtime{suffix_of(model)}"


def _off(model: Detector, images: Tensor) -> Any:
    with asleep(model.gm):
        return model.gm(images)[0]


def drift(
    found: Sequence[Predictor],
    data: str | Path,
    *,
    threshold: float = 0.25,
    imgsz: SizeLike = DEFAULT_SIZE,
    batch: int = 8,
    split: str = "val",
    images_limit: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> list[Stage]:
    """Measure stages on the same images, each against the first.

    Args:
        found: see ``stages``, or any detectors of the same classes and anchors.
        data: data set YAML with labels.
        threshold: of confidence, above 0 and below 1.
        imgsz: one side, or height and width.
        batch: images at a time.
        split: of the data set.
        images_limit: so many, evenly spread.
        progress: called with the stage's name, images done and in all.

    Raises:
        Problem: the data set or the threshold cannot be used.
    """
    if not 0 < threshold < 1:
        raise Problem("--threshold", f"{threshold}", expected="a confidence between 0 and 1")
    listener = _Listener(threshold)
    how: dict[str, Any] = {"imgsz": imgsz, "batch": batch, "split": split, "limit": images_limit}
    accuracies = [
        evaluate(one, data, progress=partial(progress, one.name), **how) for one in map(listener.hearing, found)
    ]
    base = accuracies[0]
    rows = zip(found, accuracies, listener.shifts(), strict=True)
    return [
        Stage(
            name=one.name,
            accuracy=accuracy,
            drift=None if accuracy is base else paired_drift(base, accuracy),
            recall=recall(base, accuracy, threshold),
            shift=shift,
        )
        for one, accuracy, shift in rows
    ]


class _Listener:
    """Hears every batch's predictions: of the first stage which anchors were confident, of the others what they say
    there."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.where: list[tuple[Tensor, Tensor, Tensor]] = []  # image, class, anchor, batch by batch
        self.heard: list[list[Tensor]] = []  # the scores there: stage by stage, batch by batch

    def hearing(self, one: Predictor) -> Predictor:
        """The next stage, as it is but heard."""
        self.heard.append([])

        def heard(images: Tensor) -> Any:
            output = one.predict(images)
            y = output[0] if isinstance(output, (tuple, list)) else output
            self._hear(one.final[0].scores(y))
            return output

        return replace(one, predict=heard)

    def _hear(self, scores: Tensor) -> None:
        if len(self.heard) == 1:
            best, classes = scores.max(1)
            image, anchor = torch.nonzero(best >= self.threshold, as_tuple=True)
            self.where.append((image, classes[image, anchor], anchor))
        now = self.heard[-1]
        now.append(scores[self.where[len(now)]].double().cpu())

    def shifts(self) -> list[Shift | None]:
        """Of every stage against the first."""
        first, *others = (torch.cat(batches).numpy() for batches in self.heard)
        return [None, *(_shift(first, after, self.threshold) for after in others)]


def _shift(before: NDArray[np.float64], after: NDArray[np.float64], threshold: float) -> Shift:
    if not before.size:
        return Shift(predictions=0, mean=0.0, low=0.0, high=0.0, lost=0.0)
    low, high = np.quantile(after - before, [0.05, 0.95])
    return Shift(
        predictions=before.size,
        mean=float((after - before).mean()),
        low=float(low),
        high=float(high),
        lost=float((after < threshold).mean()),
    )


def recall(base: Accuracy, other: Accuracy, threshold: float) -> Recall:
    """Recall and precision at a fixed confidence, and the change from ``base`` with a paired bootstrap interval."""
    first, counts = (_counts(one, threshold) for one in (base, other))
    labels = counts[:, 2].sum()
    found, given = counts[:, 0].sum(), counts[:, 1].sum()
    plain = Recall(recall=float(found / max(labels, 1)), precision=float(found / max(given, 1)))
    if other is base:
        return plain
    draws = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    change = (counts[:, 0] - first[:, 0])[draws].sum(1) / np.maximum(counts[:, 2][draws].sum(1), 1)
    low, high = 100 * np.quantile(change, [0.025, 0.975])
    points = 100 * float((found - first[:, 0].sum()) / max(labels, 1))
    return replace(plain, points=points, low=float(low), high=float(high))


def _counts(accuracy: Accuracy, threshold: float) -> np.ndarray:
    """For each image: right detections, detections, labels; shape (images, 3)."""
    rows = []
    for match in accuracy.matches:
        kept = match.conf >= threshold
        rows.append((match.tp[kept, IOU50].sum(), kept.sum(), len(match.target_cls)))
    return np.array(rows, dtype=float).reshape(-1, 3)


def by_class(base: Accuracy, other: Accuracy) -> list[tuple[str, int, float, float]]:
    """Name, boxes, average precision of ``base`` and its change in points, the largest loss first."""
    before = {item.index: item for item in base.classes}
    rows = [
        (item.name, item.boxes, before[item.index].ap, 100 * (item.ap - before[item.index].ap))
        for item in other.classes
    ]
    return sorted(rows, key=lambda row: row[3])
