"""A training's data set as Ultralytics is given it: read as for every command, its images listed, not searched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DistributedSampler, RandomSampler

from fxqat.data import class_folders, dataset
from fxqat.data.class_folders import ClassFolders
from fxqat.data.dataset import DataSet
from fxqat.data.labels import check_labels
from fxqat.data.rectangle import in_rectangle
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import check_classes, check_keys
from fxqat.evaluation.predictor import Predictor
from fxqat.files import link, write_text
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.models.detector import Detector
from fxqat.models.family import Labels

# isort: split
from ultralytics.data import build_dataloader, build_yolo_dataset

SPLITS = ("train", "val")


def read(detector: Detector, data: str | Path, *, needs_labels: bool) -> DataSet | ClassFolders:
    """The data set to train ``detector`` on, once its classes, images and labels are known to fit.

    Args:
        detector: of any task.
        data: data set YAML, or a folder of class folders, as the detector's family has it.
        needs_labels: whether training looks at the labels of the train split.

    Raises:
        Problem: missing, of another kind, of other classes, or a split without images or the labels that it needs.
    """
    return _READERS[detector.source.family.labels](detector, dataset.find(data), needs_labels)


def _read_files(detector: Detector, place: Path, needs_labels: bool) -> DataSet:
    if not dataset.is_yaml(place):
        raise Problem(place, "has no val split to choose the best epoch by", expected="a data set YAML")
    model, found = Predictor.of(detector, detector), dataset.read(place)
    check_classes(model, found)
    check_keys(model, found)
    for split in SPLITS:
        paths = found.images(split)
        if needs_labels or split == "val":
            check_labels(place, split, paths, len(found.names), model.row)
    return found


def _read_folders(detector: Detector, place: Path, needs_labels: bool) -> ClassFolders:
    found = class_folders.read(place, detector.source.name, detector.names)
    if missing := [split for split in SPLITS if split not in class_folders.splits_in(place)]:
        raise Problem(
            place, f"has no folder '{missing[0]}'", expected=f"folders {' and '.join(SPLITS)}, of class folders"
        )
    for split in SPLITS:
        found.images(split)
    return found


_READERS: Mapping[Labels, Callable[[Detector, Path, bool], DataSet | ClassFolders]] = {
    Labels.FILES: _read_files,
    Labels.FOLDERS: _read_folders,
}


def ultralytics_data(found: DataSet | ClassFolders, folder: Path, *, labelled: bool = True) -> dict[str, Any]:
    """What Ultralytics' trainer takes for a checked data set.

    Args:
        found: the data set.
        folder: of the run.
        labelled: whether training looks at the labels of the train split.

    Raises:
        Problem: see ``list_images``.
    """
    if isinstance(found, DataSet):
        return list_images(found, folder, labelled=labelled)
    roots = {split: str(found.folder(split)) for split in SPLITS}
    return {**roots, "path": found.file, "names": dict(found.names), "nc": len(found.names), "channels": 3}


def list_images(found: DataSet, folder: Path, *, labelled: bool = True) -> dict[str, Any]:
    """What Ultralytics' trainer takes for a checked data set; lists of its images are written into ``folder``.

    Ultralytics searches for a relative ``path`` in fewer places, and reads image lists otherwise.

    Raises:
        Problem: an image's name that cannot be listed, since it is no UTF-8, or holds a line break.
    """
    lists = {split: folder / f"{split}_images.txt" for split in SPLITS}
    for split, file in lists.items():
        paths = found.images(split)
        paths = paths if labelled or split == "val" else _without_labels(paths, folder)
        names = [os.path.abspath(path) for path in paths]
        for name in names:
            if len(name.splitlines()) > 1 or name.encode(errors="replace") != name.encode(errors="surrogateescape"):
                raise Problem(ascii(name), "is no file name that a list can hold", remedy="rename the image")
        write_text(file, "".join(f"{name}\n" for name in names))
    resolved = {split: str(file) for split, file in lists.items()}
    whole = {"channels": 3, **found.keys, "path": found.file.parent, "yaml_file": str(found.file)}
    return {**whole, **resolved, "names": dict(found.names), "nc": len(found.names)}


def _without_labels(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Links to images, each with an empty label file of its own: Ultralytics does not train on images without any, and
    what the images' own files say is not learned."""
    names = "\n".join(map(os.path.abspath, paths))
    root = folder / f"unlabelled-{hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:8]}"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True, exist_ok=True)
    links = [root / "images" / f"{index:06d}{path.suffix}" for index, path in enumerate(paths)]
    for path, linked in zip(paths, links, strict=True):
        link(path, linked)
        (root / "labels" / f"{linked.stem}.txt").touch()
    return links


def images_digest(found: DataSet | ClassFolders) -> str:
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


def in_order(loader: Any, rank: int) -> Any:
    """``loader``, or one of the same images that gives them in order: Ultralytics shuffles classes in validation too,
    and images are paired by their place."""
    if not isinstance(loader.sampler, RandomSampler | DistributedSampler):
        return loader
    how = {"workers": loader.num_workers, "shuffle": False, "rank": rank}
    return build_dataloader(loader.dataset, loader.batch_size, **how)
