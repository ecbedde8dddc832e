"""A training's data set as Ultralytics is given it: read as for every command, its images listed, not searched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from fxqat.data.dataset import DataSet
from fxqat.data.rectangle import in_rectangle
from fxqat.errors import Problem
from fxqat.files import write_text
from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.data import build_yolo_dataset

SPLITS = ("train", "val")


def list_images(found: DataSet, folder: Path) -> dict[str, Any]:
    """What Ultralytics' trainer takes for a checked data set; lists of its images are written into ``folder``.

    Ultralytics searches for a relative ``path`` in fewer places, and reads image lists otherwise.

    Raises:
        Problem: an image's name that cannot be listed, since it is no UTF-8, or holds a line break.
    """
    lists = {split: folder / f"{split}_images.txt" for split in SPLITS}
    for split, file in lists.items():
        names = [os.path.abspath(path) for path in found.images(split)]
        for name in names:
            if len(name.splitlines()) > 1 or name.encode(errors="replace") != name.encode(errors="surrogateescape"):
                raise Problem(ascii(name), "is no file name that a list can hold", remedy="rename the image")
        write_text(file, "".join(f"{name}\n" for name in names))
    resolved = {split: str(file) for split, file in lists.items()}
    whole = {"channels": 3, **found.keys, "path": found.file.parent, "yaml_file": str(found.file)}
    return {**whole, **resolved, "names": dict(found.names), "nc": len(found.names)}


def images_digest(found: DataSet) -> str:
    """SHA-256 of the names of a data set's images, without their folders: a moved data set stays the same."""
    names = [path.name for split in SPLITS for path in (*found.images(split), Path("/"))]
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def ultralytics_images(trainer: Any, listed: str, mode: str, batch: int | None) -> Any:
    """Ultralytics' data set of the images in ``listed``, all of the plan's size, in validation too, as a runtime is
    given its images.

    Raises:
        Problem: Ultralytics refuses every image or label file.
    """
    how = {"mode": mode, "rect": False, "stride": trainer.trainee.detector.stride}
    try:
        found = build_yolo_dataset(trainer.args, listed, batch, trainer.data, **how)
    except RuntimeError as error:
        raise Problem(trainer.args.data, f"split '{mode}' has no usable image: {error}") from error
    return in_rectangle(found, trainer.plan.imgsz)
