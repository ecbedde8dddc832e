"""Whether the best epoch's gain is more than chance: what was validated, image by image, kept in the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.bootstrap import Drift, paired_drift
from fxqat.models.family import Family


def keep(validator: Any, family: Family, folder: Path, epoch: int) -> None:
    """Keep what ``validator`` (see ``square_validator``), in the process that gathers, measured just now.

    Args:
        validator: done; each time it sees the same images in the same order.
        family: of the model.
        folder: of the run's weights.
        epoch: that was validated; 0 is before training.
    """
    file = _file(folder, epoch)
    write(validator.accuracy(file.stem, family), file)


def gain(folder: Path, epoch: int) -> Drift | None:
    """mAP50-95 after ``epoch`` less that before training, in points, with a paired bootstrap interval; None where
    either was not kept."""
    files = [_file(folder, one) for one in (0, epoch)]
    return paired_drift(*map(read, files)) if all(file.is_file() for file in files) else None


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch{epoch}.npz"
