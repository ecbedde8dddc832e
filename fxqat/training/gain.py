"""Whether the best epoch's gain is more than chance: what was validated before training and at the best epoch, image by
image, kept in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fxqat.analyze.accuracy import from_statistics
from fxqat.analyze.bootstrap import Drift, paired_drift
from fxqat.analyze.kept import read, write


def keep(validator: Any, folder: Path, *, start: bool) -> None:
    """Keep what ``validator`` (a SquareValidator) measured just now.

    Args:
        validator: done, in the process that gathers.
        folder: of the run's weights.
        start: before training; else at the best epoch so far.
    """
    count = len(validator.statistics["tp"])
    paths = [Path(str(index)) for index in range(count)]  # both times the same images in the same order
    found = from_statistics(_name(start), validator.metrics, validator.names, paths, validator.statistics)
    write(found, _file(folder, start))


def gain(folder: Path) -> Drift | None:
    """mAP50-95 of the best epoch less that before training, in points, with a paired bootstrap interval; None where
    either was not kept."""
    files = [_file(folder, start) for start in (True, False)]
    return paired_drift(*map(read, files)) if all(file.is_file() for file in files) else None


def _file(folder: Path, start: bool) -> Path:
    return folder / f"{_name(start)}.npz"


def _name(start: bool) -> str:
    return "start" if start else "best"
