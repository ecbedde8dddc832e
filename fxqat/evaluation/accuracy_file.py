"""The file of an accuracy: its numbers and, image by image, its matches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fxqat.errors import Problem
from fxqat.evaluation.metrics import Accuracy, Matches
from fxqat.files import replacing
from fxqat.models.families import DEFAULT, FAMILIES
from fxqat.models.family import Metric

_COLUMNS = ("tp", "conf", "pred_cls", "target_cls")
_SCALARS = ("map5095", "map50", "precision", "recall")


def write(found: Accuracy, path: Path) -> None:
    """Write ``found``'s numbers and matches to an .npz file."""
    columns = {f"{name}{index}": getattr(match, name) for index, match in enumerate(found.matches) for name in _COLUMNS}
    scalars = {name: getattr(found, name) for name in _SCALARS}
    pictures = np.array([str(match.image) for match in found.matches])
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary, model=found.model, metric=found.metric.key, pictures=pictures, **scalars, **columns
        )


def read(path: Path) -> Accuracy:
    """What ``write`` wrote.

    Raises:
        Problem: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            return _accuracy(np.load(file, allow_pickle=False))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise Problem(path, "is damaged", expected="what fxqat wrote there", remedy="delete it") from error


def _accuracy(stored: Mapping[str, np.ndarray]) -> Accuracy:
    matches = tuple(
        Matches(image=Path(str(image)), **{name: stored[f"{name}{index}"] for name in _COLUMNS})
        for index, image in enumerate(stored["pictures"])
    )
    numbers = {name: float(stored[name]) for name in _SCALARS}
    return Accuracy(
        model=str(stored["model"]),
        map5095=numbers["map5095"],
        map50=numbers["map50"],
        precision=numbers["precision"],
        recall=numbers["recall"],
        images=len(matches),
        boxes=sum(len(match.target_cls) for match in matches),
        classes=(),
        matches=matches,
        skipped=(),
        metric=_metric(str(stored["metric"]) if "metric" in stored else DEFAULT.metric.key),
    )


def _metric(key: str) -> Metric:
    every = [metric for family in FAMILIES.values() for metric in family.metrics]
    return next(metric for metric in every if metric.key == key)
