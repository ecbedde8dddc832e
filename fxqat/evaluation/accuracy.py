"""Accuracy of a detector on a labelled data set, measured by Ultralytics' own validator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fxqat.data import dataset, images
from fxqat.data.class_folders import are_placeholders
from fxqat.data.labels import check_labels, label_file
from fxqat.errors import Problem
from fxqat.evaluation.classification import evaluate_classes
from fxqat.evaluation.metrics import Accuracy, ClassAccuracy, Matches, from_statistics
from fxqat.evaluation.predictor import Predictor, from_onnx
from fxqat.files import link, temporary_folder
from fxqat.models.family import Labels
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike

__all__ = ["Accuracy", "ClassAccuracy", "Matches", "Predictor", "evaluate", "from_onnx"]


def evaluate(
    model: Predictor,
    data: str | Path,
    *,
    imgsz: SizeLike = DEFAULT_SIZE,
    batch: int = 8,
    split: str = "val",
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Measure a detector as ``yolo val`` does a file of this size; nothing is left on disk and ``data`` is only read.

    Args:
        model: what to measure.
        data: data set YAML, or the name of one that Ultralytics ships.
        imgsz: one side, or height and width, multiples of the model's stride.
        batch: images at a time.
        split: which split of the YAML.
        limit: so many images, evenly spread; all of them by default.
        progress: called with images done and images in all.

    Raises:
        Problem: the data set is missing, malformed or without labels, the model does not predict its classes or does
            not take this image size.
    """
    size = ImageSize.of(imgsz).checked(model.stride)
    if model.imgsz not in (None, size):
        raise Problem(f"imgsz {size}", f"{model.name} takes {model.imgsz} only", remedy=f"use {model.imgsz}")
    if model.family.labels is Labels.FOLDERS:
        return evaluate_classes(
            model, data, size=size, batch=batch, split=split, limit=limit, progress=progress or _quietly
        )
    place = dataset.find(data)
    if not dataset.is_yaml(place):
        raise Problem(place, "has no labels to measure against", expected="a data set YAML")
    data_set = dataset.read(place)
    check_classes(model, data_set)
    check_keys(model, data_set)
    found = images.image_paths(place, split=split, limit=limit)
    check_labels(data_set.file, split, found.paths, len(data_set.names), model.row)
    with temporary_folder("fxqat-val-") as folder:
        return _measure(model, data_set, found, folder, size, batch, progress or _quietly)


def _quietly(done: int, total: int) -> None:
    """No progress."""


def check_classes(model: Predictor, data_set: dataset.DataSet) -> None:
    """Compare the classes of model and data set.

    Raises:
        Problem: they differ in number, or in a name (apart from case, spaces, ``-`` and ``_``; placeholders agree with
            anything).
    """
    mine, theirs = model.names, data_set.names
    if len(mine) != len(theirs):
        counts = f"has {len(theirs)} classes, {model.name} predicts {len(mine)}"
        raise Problem(data_set.file, counts, remedy="use the data set the model was trained for")
    if not data_set.named or are_placeholders(mine):
        return
    if wrong := [index for index in sorted(theirs) if _plain(mine.get(index, "")) != _plain(theirs[index])]:
        at = wrong[0]
        what = f"class {at} is '{theirs[at]}', {model.name} predicts '{mine.get(at)}' ({len(wrong)} classes differ)"
        raise Problem(data_set.file, what, remedy="put its names in the model's order")


def check_keys(model: Predictor, data_set: dataset.DataSet) -> None:
    """Compare what a data set says of its labels with what the model predicts.

    Raises:
        Problem: it says nothing of it, or something else.
    """
    for key, wanted in model.family.data_keys(model.head).items():
        if (said := data_set.keys.get(key)) != wanted:
            what = f"{key} is {said}, {model.name} predicts {wanted}" if said else f"does not say {key}"
            raise Problem(data_set.file, what, expected=f"{key}: {wanted}")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in " -_")


def _measure(
    model: Predictor,
    data_set: dataset.DataSet,
    found: images.ImageList,
    folder: Path,
    size: ImageSize,
    batch: int,
    progress: Callable[[int, int], None],
) -> Accuracy:
    from fxqat.evaluation.validators import ImageValidator, square_validator

    staged, skipped = _stage(found.paths, folder)
    if not staged:
        raise images.no_readable_image(found.source, skipped)
    try:
        kind = square_validator(model.family, ImageValidator)
        validator = kind(model, folder, data_set, size=size, batch=batch)
    except RuntimeError as error:  # Ultralytics refused every image or label file
        raise Problem(data_set.file, f"split '{found.split}' has no usable image: {error}") from error
    accepted = [file.name for file in validator.files]
    refused = [path for name, path in staged.items() if name not in set(accepted)]
    statistics = validator.run(model, progress)
    if not validator.metrics.nt_per_class.sum():  # those that have labels cannot be read
        where = f"split '{found.split}' has no labelled object in its {len(accepted)} readable images"
        raise Problem(data_set.file, where, expected="label files in labels/ beside images/")
    skipped += [(path, "Ultralytics refuses the image or its label file as malformed") for path in refused]
    paths = [staged[name] for name in accepted]
    names = data_set.names
    return from_statistics(
        model.name, validator.metrics, names, paths, statistics, skipped=tuple(skipped), family=model.family
    )


def _stage(paths: Sequence[Path], folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Link the readable images and their labels into ``folder``, in order; return what is there and what is not.

    Ultralytics writes a label cache beside the labels, reads caches and .npy files (pickles among them) it finds
    there, and rewrites JPEGs it thinks damaged. Among links it can do all that without touching the data set.
    """
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
        link(path, folder / "images" / name)
        if (label := label_file(path)).is_file():
            link(label, folder / "labels" / f"{index:06d}.txt")
    return staged, skipped
