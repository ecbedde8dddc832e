"""Whether the best epoch's gain is more than chance: what was validated, image by image, kept in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fxqat.evaluation.bootstrap import Drift, paired_drift
from fxqat.evaluation.cache import read, write
from fxqat.evaluation.metrics import from_statistics
from fxqat.models.family import Family


def keep(validator: Any, family: Family, folder: Path, epoch: int) -> None:
    """Keep what ``validator`` (a SquareValidator), in the process that gathers, measured just now.

    Args:
        validator: done.
        family: of the model.
        folder: of the run's weights.
        epoch: that was validated; 0 is before training.
    """
    count = len(validator.statistics["tp"])
    paths = [Path(str(index)) for index in range(count)]  # each time the same images in the same order
    file = _file(folder, epoch)
    found = from_statistics(file.stem, validator.metrics, validator.names, paths, validator.statistics, family=family)
    write(found, file)


def gain(folder: Path, epoch: int) -> Drift | None:
    """mAP50-95 after ``epoch`` less that before training, in points, with a paired bootstrap interval; None where
    either was not kept."""
    files = [_file(folder, one) for one in (0, epoch)]
    return paired_drift(*map(read, files)) if all(file.is_file() for file in files) else None


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch{epoch}.npz"
