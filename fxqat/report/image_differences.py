"""How far two models are apart, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fxqat.evaluation.predictor import Predictor
from fxqat.report.detections import Detection, Pair, iou, paired
from fxqat.report.predictions import CONFIDENCE, detections

Note = Callable[[list[Detection]], None]
Differences = Mapping[Path, float | None]  # see ``difference``, in the order of the images


def difference(pair: Pair) -> float | None:
    """How far what two models find on an image is apart, 0 (the same) to 1; None where neither finds anything.

    As ``fxqat.evaluation.disagreement``, of what a page shows instead of anchors, and of both models alike::

        sum of w d / sum of w

    over objects that both find, with w = s + s' and d = 1 - IoU (1 - |s - s'|), and those that one finds, with w = s
    and d = s - ``CONFIDENCE``: so much apart at least are the scores, since the other's is below that. Of whole images,
    which always have a class, another class counts as d = 1.
    """
    before, after = pair
    couples = paired(before, after)
    taken = {id(other) for _, other in couples if other is not None}
    parts = [_alone(one) if other is None else _couple(one, other) for one, other in couples]
    parts += [_alone(other) for other in after if id(other) not in taken]
    weight = sum(part[0] for part in parts)
    return sum(part[0] * part[1] for part in parts) / weight if weight else None


def _couple(one: Detection, other: Detection) -> tuple[float, float]:
    return one.score + other.score, 1 - iou(one, other) * (1 - abs(one.score - other.score))


def _alone(one: Detection) -> tuple[float, float]:
    return one.score, 1.0 if one.box is None else one.score - CONFIDENCE


class ImageDifferences:
    """The difference on each image of a validation, noted while one model after the other predicts the same images in
    the same order; places are compared by boxes, since masks of a whole data set do not fit in memory.

    Attributes:
        values: see ``difference``, image by image.
    """

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self._first: list[list[Detection]] = []

    def first(self, model: Predictor) -> Predictor:
        """``model``, to predict every image before ``second`` does."""
        return _noting(model, self._first.append)

    def second(self, model: Predictor) -> Predictor:
        """``model``, to predict them then."""
        return _noting(model, self._compare)

    def _compare(self, found: list[Detection]) -> None:
        self.values.append(difference((self._first[len(self.values)], found)))


def _noting(model: Predictor, note: Note) -> Predictor:
    """``model``, calling ``note`` with what it finds on each image that it predicts."""

    def predict(images: Tensor) -> Any:
        outputs = model(images)
        for index in range(len(images)):
            one = [y[index : index + 1] for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
            note(detections(model, one, images.shape[2:], parts=False))
        return outputs

    return replace(model, predict=predict)
