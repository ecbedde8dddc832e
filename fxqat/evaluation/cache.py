"""What took long, kept in a folder under the hash of all it depends on: calibrated detectors, and accuracies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fxqat.checkpoint.model_io import load, save
from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.metrics import Accuracy
from fxqat.files import make_folder
from fxqat.models.detector import Detector


class ResultCache:
    """A folder of finished work.

    Args:
        folder: made if it is missing; None keeps nothing.

    Raises:
        Problem: the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = make_folder(folder, "--work") if folder is not None else None

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
