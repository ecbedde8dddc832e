"""Accuracy of a classifier on images that lie in a folder for each class, as Ultralytics' validator measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fxqat.data import class_folders, dataset, images
from fxqat.evaluation.metrics import Accuracy, ClassAccuracy, Matches
from fxqat.evaluation.predictor import Predictor
from fxqat.models.family import Metric
from fxqat.models.image_size import ImageSize

FEW = 5  # guesses of top-5


def evaluate_classes(
    model: Predictor,
    data: str | Path,
    *,
    size: ImageSize,
    batch: int = 8,
    split: str = "val",
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Top-1 and top-5 accuracy: the share of images whose class has the highest probability, or one of the highest.

    ``precision`` and ``recall`` are means over classes of the same guesses.

    Args:
        model: of the task ``classify``.
        data: folder with a folder for each split, or for each class; folders of images are named as the classes.
        size: of the images.
        batch: images at a time.
        split: which split.
        limit: so many images, evenly spread.
        progress: called with images done and in all.

    Raises:
        Problem: no such folder, no images, or a folder that is no class.
    """
    found = class_folders.read(dataset.find(data), model.name, model.names)
    wanted = found.classes(split)
    paths = images.spread(list(wanted), limit)
    skipped = list[tuple[Path, str]]()
    guesses = dict(_guesses(model, paths, size, batch, skipped, progress))
    if not guesses:
        raise images.no_readable_image(found.folder(split), skipped)
    readable, probabilities = list(guesses), torch.stack(list(guesses.values()))
    measured = from_guesses(
        model.name,
        model.family.metric,
        found.names,
        readable,
        ranked(probabilities).numpy(),
        np.array([wanted[path] for path in readable]),
        probabilities.amax(1).numpy(),
    )
    return replace(measured, skipped=tuple(skipped))


def _guesses(
    model: Predictor,
    paths: Sequence[Path],
    size: ImageSize,
    batch: int,
    skipped: list[tuple[Path, str]],
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Path, Tensor]]:
    """Each readable image with its probabilities, (classes,); ``skipped`` receives the others, and why."""
    for start in range(0, len(paths), batch):
        shown = dict[Path, Tensor]()
        for path in paths[start : start + batch]:
            try:
                shown[path] = images.load_image(path, size, model.family.fit)
            except images.Unreadable as error:
                skipped.append((path, str(error)))
        if shown:
            yield from zip(shown, model(torch.stack(list(shown.values()))), strict=True)
        progress(min(start + batch, len(paths)), len(paths))


def ranked(probabilities: Tensor) -> Tensor:
    """The indices of the most probable classes of each image, (N, at most 5), the first of equal ones first.

    Args:
        probabilities: (N, classes).
    """
    return probabilities.argsort(dim=1, descending=True, stable=True)[:, :FEW]


def from_guesses(
    name: str,
    metric: Metric,
    names: Mapping[int, str],
    paths: Sequence[Path],
    order: np.ndarray,
    wanted: np.ndarray,
    confidences: np.ndarray | None = None,
) -> Accuracy:
    """What guesses are worth.

    Args:
        name: of the model.
        metric: of its task.
        names: class names by index.
        paths: of the images.
        order: the best guesses of each image, (N, at most 5), see ``ranked``.
        wanted: each image's class, (N,).
        confidences: of the best guesses, (N,); 1 where they are not known, since no share of right guesses asks.
    """
    first, right = order[:, 0], order == wanted[:, None]
    sure = np.ones(len(order)) if confidences is None else confidences
    classes = [_class(names, index, right[wanted == index]) for index in np.unique(wanted)]
    precision = [_precision(first, wanted, index) for index in np.unique(wanted)]
    return Accuracy(
        model=name,
        map5095=float(right[:, 0].mean()),
        map50=float(right.any(1).mean()),
        precision=float(np.mean(precision)),
        recall=float(np.mean([one.ap for one in classes])),
        images=len(paths),
        boxes=len(paths),
        classes=tuple(classes),
        matches=tuple(
            Matches(
                image=path,
                tp=right[[row], :1],
                conf=sure[[row]],
                pred_cls=first[[row]],
                target_cls=wanted[[row]],
            )
            for row, path in enumerate(paths)
        ),
        skipped=(),
        metric=metric,
    )


def _precision(guessed: np.ndarray, wanted: np.ndarray, index: int) -> float:
    chosen = wanted[guessed == index]
    return float((chosen == index).mean()) if len(chosen) else 0.0


def _class(names: Mapping[int, str], index: int, right: np.ndarray) -> ClassAccuracy:
    top, few = float(right[:, 0].mean()), float(right.any(1).mean())
    return ClassAccuracy(index=int(index), name=names[int(index)], boxes=len(right), ap=top, ap50=few)
