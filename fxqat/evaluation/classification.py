"""Accuracy of a classifier on images that lie in a folder for each class, as Ultralytics' validator measures it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fxqat.data import dataset, images
from fxqat.errors import Problem
from fxqat.evaluation.metrics import Accuracy, ClassAccuracy, Matches
from fxqat.evaluation.predictor import Predictor
from fxqat.graph.site import nearest
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
    root = class_folder(data, split)
    paths = images.spread(dataset.images_at(root), limit)
    wanted = _indices(model, root, paths)
    readable, guesses, skipped = list[Path](), list[Tensor](), list[tuple[Path, str]]()
    for start in range(0, len(paths), batch):
        shown = list[Tensor]()
        for path in paths[start : start + batch]:
            try:
                shown.append(images.load_image(path, size, model.family.fit))
                readable.append(path)
            except images.Unreadable as error:
                skipped.append((path, str(error)))
        guesses += list(model(torch.stack(shown))) if shown else []
        progress(min(start + batch, len(paths)), len(paths))
    if not readable:
        raise images.no_readable_image(root, len(paths))
    probabilities = torch.stack(guesses).numpy()
    return _accuracy(model, readable, probabilities, np.array([wanted[path] for path in readable]), tuple(skipped))


def class_folder(data: str | Path, split: str) -> Path:
    """The folder that holds a folder for each class.

    Raises:
        Problem: there is none.
    """
    root = dataset.find(data)
    if not root.is_dir():
        raise Problem(root, "is no folder", expected="a folder of images for each class")
    return root / split if (root / split).is_dir() else root


def _indices(model: Predictor, root: Path, paths: Sequence[Path]) -> dict[Path, int]:
    known = {name: index for index, name in model.names.items()}
    found: dict[Path, int] = {}
    for path in paths:
        name = path.relative_to(root).parts[0]
        if name not in known:
            what = f"{name!r} is no class of {model.name}"
            raise Problem(root, what, expected=f"folders named: {', '.join(known)}", remedy=nearest(name, known))
        found[path] = known[name]
    return found


def _accuracy(
    model: Predictor,
    paths: Sequence[Path],
    probabilities: np.ndarray,
    wanted: np.ndarray,
    skipped: tuple[tuple[Path, str], ...],
) -> Accuracy:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :FEW]
    first, right = order[:, 0], order == wanted[:, None]
    classes = [_class(model, index, right[wanted == index]) for index in np.unique(wanted)]
    precision = [_precision(first, wanted, index) for index in np.unique(wanted)]
    return Accuracy(
        model=model.name,
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
                conf=probabilities[row, first[[row]]],
                pred_cls=first[[row]],
                target_cls=wanted[[row]],
            )
            for row, path in enumerate(paths)
        ),
        skipped=skipped,
        metric=model.family.metric,
    )


def _precision(guessed: np.ndarray, wanted: np.ndarray, index: int) -> float:
    chosen = wanted[guessed == index]
    return float((chosen == index).mean()) if len(chosen) else 0.0


def _class(model: Predictor, index: int, right: np.ndarray) -> ClassAccuracy:
    top, few = float(right[:, 0].mean()), float(right.any(1).mean())
    return ClassAccuracy(index=int(index), name=model.names[int(index)], boxes=len(right), ap=top, ap50=few)
