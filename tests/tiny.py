"""Tiny data sets of every task: grey noise with coloured rectangles, told as each task's labels tell them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

COLOURS = {0: ("red", (0, 0, 255)), 1: ("green", (0, 255, 0)), 2: ("blue", (255, 0, 0))}  # BGR, as cv2 writes
SIZES = ((120, 160), (160, 120), (96, 96), (64, 200), (50, 40), (33, 61))  # height, width: up- and downscaled at 96
SPLITS = ("train", "val")
KEYPOINTS = (17, 3)  # COCO's, as Ultralytics' architectures have them
NAMES = {index: name for index, (name, _) in COLOURS.items()}
Box = Sequence[float]  # centre x, centre y, width, height, relative


def write_data(root: Path, task: str, *, count: int = 6) -> Path:
    """Write ``count`` PNG images a split with the labels of ``task``, 3 classes; what ``--data`` takes.

    Image i has rectangles of 1 + i % 3 classes, one of each; of a classifier one, of class i % 3.
    """
    root.mkdir(parents=True, exist_ok=True)
    write = _write_classes if task == "classify" else _write_objects
    return write(root, task, count)


def _write_objects(root: Path, task: str, count: int) -> Path:
    for split in SPLITS:
        generator = np.random.default_rng(len(split))
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            picture, rows = draw(generator, SIZES[index % len(SIZES)], classes=1 + index % 3)
            cv2.imwrite(str(images / f"{index:03d}.png"), picture)
            (labels / f"{index:03d}.txt").write_text("\n".join(_told(row, _ROWS[task]) for row in rows))
    path = root / "tiny.yaml"
    keys = {"train": "images/train", "val": "images/val", "names": NAMES, **_KEYS.get(task, {})}
    path.write_text(yaml.safe_dump(keys))
    return path


def _write_classes(root: Path, task: str, count: int) -> Path:
    """A folder for each class; an image shows the colour of its class."""
    for split in SPLITS:
        generator = np.random.default_rng(len(split))
        for index in range(count):
            name, colour = COLOURS[index % len(COLOURS)]
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            picture = generator.integers(90, 140, (*SIZES[index % len(SIZES)], 3), dtype=np.uint8)
            picture[8:24, 8:24] = colour
            cv2.imwrite(str(folder / f"{index:03d}.png"), picture)
    return root


def _told(row: str, tell: Callable[[Box], Sequence[float]]) -> str:
    """A row of ``draw``, told as a task does."""
    index, *box = row.split()
    return " ".join([index, *(f"{value:.6f}" for value in tell([float(word) for word in box]))])


def _corners(box: Box) -> list[float]:
    x, y, width, height = box
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]


def _points(box: Box) -> list[float]:
    """The box, and visible points along its diagonal."""
    x, y, width, height = box
    steps = np.linspace(-0.4, 0.4, KEYPOINTS[0])
    return [*box, *(value for step in steps for value in (x + step * width, y + step * height, 2.0))]


_ROWS: dict[str, Callable[[Box], Sequence[float]]] = {
    "detect": lambda box: box,
    "segment": _corners,
    "obb": _corners,
    "pose": _points,
}
_KEYS: dict[str, dict[str, Any]] = {"pose": {"kpt_shape": list(KEYPOINTS), "flip_idx": list(range(KEYPOINTS[0]))}}


def draw(generator: np.random.Generator, size: tuple[int, int], *, classes: int) -> tuple[np.ndarray, list[str]]:
    """One picture (H, W, 3) uint8 BGR and its label rows ``class x y w h``, relative; rectangles do not touch."""
    height, width = size
    picture = np.repeat(generator.integers(90, 140, (height, width, 1), dtype=np.uint8), 3, axis=2)
    rows = []
    for index in range(classes):
        strip = width // 3
        left, right = index * strip + 1, index * strip + int(generator.integers(strip // 2, strip - 1))
        top = int(generator.integers(1, height // 3))
        bottom = int(generator.integers(height // 2, height - 1))
        picture[top:bottom, left:right] = COLOURS[index][1]
        box = ((left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height)
        rows.append(" ".join([str(index), *(f"{value:.6f}" for value in box)]))
    return picture, rows
