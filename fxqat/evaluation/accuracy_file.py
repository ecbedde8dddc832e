"""The file of an accuracy: its numbers and, image by image, its matches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, Matches
from fxqat.files import replacing

_COLUMNS = ("tp", "conf", "pred_cls", "target_cls")
_SCALARS = ("map5095", "map50", "precision", "recall")


def write(found: Accuracy, path: Path) -> None:
    """Write ``found``'s numbers and matches to an .npz file."""
    columns = {f"{name}{index}": getattr(match, name) for index, match in enumerate(found.matches) for name in _COLUMNS}
    scalars = {name: getattr(found, name) for name in _SCALARS}
    pictures = np.array([str(match.image) for match in found.matches])
    with replacing(path) as temporary:
        np.savez_compressed(temporary, model=found.model, pictures=pictures, **scalars, **columns)


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
    return Accuracy(
        model=str(stored["model"]),
        **{name: float(stored[name]) for name in _SCALARS},
        images=len(matches),
        boxes=sum(len(match.target_cls) for match in matches),
        classes=(),
        matches=matches,
        skipped=(),
    )
