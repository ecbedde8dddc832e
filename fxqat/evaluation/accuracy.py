"""Accuracy of a detector on a labelled data set, measured by Ultralytics' own validator."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fxqat.data import dataset, images
from fxqat.errors import Problem
from fxqat.evaluation.predictor import Evaluated, from_onnx

__all__ = ["Accuracy", "ClassAccuracy", "Evaluated", "Matches", "evaluate", "from_onnx"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """How one image's detections met its labels, as Ultralytics matched them.

    ``tp`` (P, 10) bool: detection p is right at IoU 0.50, 0.55 .. 0.95. ``conf`` and ``pred_cls`` (P,);
    ``target_cls`` (T,): the classes of the labels.
    """

    image: Path
    tp: np.ndarray
    conf: np.ndarray
    pred_cls: np.ndarray
    target_cls: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """One class that has labels: average precision over IoU 0.50 to 0.95, and at 0.50; both 0..1."""

    index: int
    name: str
    boxes: int
    ap: float
    ap50: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """Ultralytics' detection metrics, 0..1, and what they were computed from.

    ``precision`` and ``recall`` are means over classes at the confidence that maximises the mean F1. ``skipped`` names
    each image that was left out, and why.
    """

    model: str
    map5095: float
    map50: float
    precision: float
    recall: float
    images: int
    boxes: int
    classes: tuple[ClassAccuracy, ...]
    matches: tuple[Matches, ...]
    skipped: tuple[tuple[Path, str], ...]

    def summary(self) -> dict[str, Any]:
        """Everything but the matches, ready for JSON."""
        plain = ("model", "map5095", "map50", "precision", "recall", "images", "boxes")
        return {
            **{key: getattr(self, key) for key in plain},
            "classes": {item.name: {"boxes": item.boxes, "ap": item.ap, "ap50": item.ap50} for item in self.classes},
            "skipped": [{"image": str(path), "why": why} for path, why in self.skipped],
        }


def evaluate(
    model: Evaluated,
    data: str | Path,
    *,
    imgsz: int = 640,
    batch: int = 8,
    split: str = "val",
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Measure a detector as ``yolo val`` does with ``rect=False``; nothing is left on disk and ``data`` is only read.

    Args:
        model: what to measure.
        data: data set YAML, or the name of one that Ultralytics ships.
        imgsz: pixels, square, a multiple of 32.
        batch: images at a time.
        split: which split of the YAML.
        limit: so many images, evenly spread; all of them by default.
        progress: called with images done and images in all.

    Raises:
        Problem: the data set is missing, malformed or without labels, the model does not predict its classes or does
            not take this image size.
    """
    images.check_imgsz(imgsz)
    if model.imgsz not in (None, imgsz):
        raise Problem(f"imgsz {imgsz}", f"{model.name} takes {model.imgsz} only", remedy=f"use {model.imgsz}")
    place = dataset.find(data)
    if place.suffix not in dataset.YAML_SUFFIXES:
        raise Problem(place, "has no labels to measure against", expected="a data set YAML")
    data_set = dataset.read(place)
    check_classes(model, data_set)
    found = images.image_paths(place, split=split, limit=limit)
    with tempfile.TemporaryDirectory(prefix="fxqat-val-") as folder:
        return _measure(model, data_set, found, Path(folder), imgsz, batch, progress or (lambda done, total: None))


def check_classes(model: Evaluated, data_set: dataset.DataSet) -> None:
    """Compare the classes of model and data set.

    Raises:
        Problem: they differ in number, or in a name (apart from case, spaces, ``-`` and ``_``; placeholders agree with
            anything).
    """
    mine, theirs = model.names, data_set.names
    if len(mine) != len(theirs):
        counts = f"has {len(theirs)} classes, {model.name} predicts {len(mine)}"
        raise Problem(data_set.file, counts, remedy="use the data set the model was trained for")
    if not data_set.named or all(name.removeprefix("class").strip("_ ").isdigit() for name in mine.values()):
        return
    if wrong := [index for index in sorted(theirs) if _plain(mine.get(index, "")) != _plain(theirs[index])]:
        at = wrong[0]
        what = f"class {at} is '{theirs[at]}', {model.name} predicts '{mine.get(at)}' ({len(wrong)} classes differ)"
        raise Problem(data_set.file, what, remedy="put its names in the model's order")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in " -_")


def _measure(
    model: Evaluated,
    data_set: dataset.DataSet,
    found: images.ImageList,
    folder: Path,
    imgsz: int,
    batch: int,
    progress: Callable[[int, int], None],
) -> Accuracy:
    from fxqat.evaluation.validators import ImageValidator

    staged, skipped = _stage(found.paths, folder)
    if not staged:
        raise images.no_readable_image(found.source, len(found))
    try:
        validator = ImageValidator(folder, data_set.names, imgsz=imgsz, batch=batch)
    except RuntimeError as error:  # Ultralytics refused every image or label file
        raise Problem(data_set.file, f"split '{found.split}' has no usable image: {error}") from error
    accepted = [file.name for file in validator.files]
    refused = [path for name, path in staged.items() if name not in set(accepted)]
    statistics = validator.run(model, progress)
    if not validator.metrics.nt_per_class.sum():
        where = f"split '{found.split}' has no labels ({len(accepted)} images)"
        raise Problem(data_set.file, where, expected="label files in labels/ beside images/")
    skipped += [(path, "Ultralytics refuses the image or its label file as malformed") for path in refused]
    paths = [staged[name] for name in accepted]
    return from_statistics(model.name, validator.metrics, data_set.names, paths, statistics, skipped=tuple(skipped))


def _stage(paths: Sequence[Path], folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Link the readable images and their labels into ``folder``, in order; return what is there and what is not.

    Ultralytics writes a label cache beside the labels, reads caches and .npy files (pickles among them) it finds
    there, and rewrites JPEGs it thinks damaged. Among links it can do all that without touching the data set.
    """
    from ultralytics.data.utils import img2label_paths

    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    staged: dict[str, Path] = {}
    skipped: list[tuple[Path, str]] = []
    for index, path in enumerate(paths):
        try:
            images.read_pixels(path)
        except images.Unreadable as error:
            skipped.append((path, str(error)))
            continue
        name = f"{index:06d}{path.suffix}"
        staged[name] = path
        _link(path, folder / "images" / name)
        if (label := Path(img2label_paths([os.path.abspath(path)])[0])).is_file():
            _link(label, folder / "labels" / f"{index:06d}.txt")
    return staged, skipped


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(os.path.abspath(source))
    except OSError:  # Windows without the privilege, or a file system without links
        shutil.copyfile(source, target)


def _matches(paths: Sequence[Path], statistics: Mapping[str, list[Any]]) -> tuple[Matches, ...]:
    columns = zip(*(statistics[key] for key in ("tp", "conf", "pred_cls", "target_cls")), strict=True)
    return tuple(
        Matches(image=path, tp=tp, conf=conf, pred_cls=predicted, target_cls=target)
        for path, (tp, conf, predicted, target) in zip(paths, columns, strict=True)
    )


def from_statistics(
    name: str,
    metrics: Any,
    names: Mapping[int, str],
    paths: Sequence[Path],
    statistics: Mapping[str, list[Any]],
    skipped: tuple[tuple[Path, str], ...] = (),
) -> Accuracy:
    """What a validator of Ultralytics' measured.

    Args:
        name: of the model.
        metrics: the validator's, after it is done.
        names: class names by index.
        paths: of the images, in the order of evaluation.
        statistics: one entry an image under each of Ultralytics' names.
        skipped: images that were left out, and why.
    """
    matches = _matches(paths, statistics)
    box, labels = metrics.box, metrics.nt_per_class
    classes = [
        ClassAccuracy(index=int(c), name=names[int(c)], boxes=int(labels[c]), ap=float(ap), ap50=float(ap50))
        for c, ap, ap50 in zip(box.ap_class_index, box.ap, box.ap50, strict=True)
    ]
    return Accuracy(
        model=name,
        map5095=float(box.map),
        map50=float(box.map50),
        precision=float(box.mp),
        recall=float(box.mr),
        images=len(matches),
        boxes=int(labels.sum()),
        classes=tuple(classes),
        matches=matches,
        skipped=skipped,
    )
