"""What took long, kept in a folder under the hash of all it depends on: calibrated detectors, and accuracies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fxqat.api import load, save
from fxqat.errors import Problem
from fxqat.evaluation.metrics import Accuracy, Matches
from fxqat.files import replacing
from fxqat.models.detector import Detector
from fxqat.models.families import DEFAULT, FAMILIES
from fxqat.models.family import Metric

_COLUMNS = ("tp", "conf", "pred_cls", "target_cls")
_SCALARS = ("map5095", "map50", "precision", "recall")


class Kept:
    """A folder of finished work.

    Args:
        folder: made if it is missing; None keeps nothing.

    Raises:
        Problem: the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(str(folder), f"cannot be made ({error.strerror})", remedy="choose another --work") from error

    def detector(self, what: Mapping[str, Any], make: Callable[[], Detector]) -> Detector:
        """The detector that depends on ``what`` (ready for JSON): from the folder, or made and put there."""
        if self.folder is None:
            return make()
        path = self.folder / f"detector-{_digest(what)}.fxqat"
        if not path.is_file():
            save(make(), path)
        return load(path)

    def accuracy(self, what: Mapping[str, Any], make: Callable[[], Accuracy]) -> Accuracy:
        """Likewise an accuracy. One from the folder has no single classes and no list of what was skipped."""
        if self.folder is None:
            return make()
        path = self.folder / f"accuracy-{_digest(what)}.npz"
        if not path.is_file():
            write(make(), path)
        return read(path)


def _digest(what: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


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
