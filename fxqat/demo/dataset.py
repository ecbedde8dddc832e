"""The generated data set on disk, in Ultralytics' layout, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from fxqat.demo.canvas import WIDTH
from fxqat.demo.portable_random import Dice
from fxqat.demo.scene import Scene, scene
from fxqat.demo.signs import CLASSES
from fxqat.errors import Problem
from fxqat.files import scratch_folder

SPLITS = ("train", "val", "calibration")
FEWEST, MOST = 20, 100_000
JPEG_QUALITY = 90
_RECORD = "demo.json"
_DRAWING = 1
"""Raised whenever the drawing changes, so that an older data set is not taken for this one."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What fixes a data set: the total number of images, the seed and the width of a picture in pixels."""

    images: int
    seed: int
    imgsz: int
    drawing: int = _DRAWING

    def __post_init__(self) -> None:
        if not FEWEST <= self.images <= MOST:
            raise Problem("images", f"is {self.images}", expected=f"{FEWEST} to {MOST}")
        if not 0 <= self.seed < 2**32:
            raise Problem("seed", f"is {self.seed}", expected="0 to 4294967295")
        if self.imgsz % 32 or not 160 <= self.imgsz <= 1280:
            raise Problem("imgsz", f"is {self.imgsz}", expected="a multiple of 32 from 160 to 1280")

    @property
    def counts(self) -> dict[str, int]:
        """Images a split: a quarter for val, a tenth for calibration, the rest for train."""
        val, calibration = self.images // 4, self.images // 10
        return {"train": self.images - val - calibration, "val": val, "calibration": calibration}

    def draw(self, split: str, index: int) -> Scene:
        """Return one scene; it depends on seed, split and index only: a larger data set begins with a smaller one."""
        return scene(Dice(self.seed, SPLITS.index(split), index), index % len(CLASSES), self.imgsz)


def make_dataset(
    out: str | Path, *, images: int = 600, seed: int = 0, imgsz: int = WIDTH, progress: Progress | None = None
) -> Path:
    """Draw traffic-sign scenes into the folder ``out`` and return the path of its ``data.yaml``.

    The folder holds ``images/SPLIT/*.jpg``, ``labels/SPLIT/*.txt`` (class and box as shares of the picture) and
    ``data.yaml`` with names, train, val and calibration. The pictures are ``imgsz`` x ``imgsz * 3 / 4`` pixels and
    depend on the arguments only. All is drawn into a temporary folder beside ``out`` and renamed at the end.
    If ``out`` already holds the data set of these arguments, nothing is drawn.

    Args:
        out: the folder to create; it may exist if it is empty.
        images: images in all, 20 to 100000; a quarter is for val, a tenth for calibration.
        seed: 0 to 2**32 - 1.
        imgsz: width of a picture in pixels, a multiple of 32 from 160 to 1280.
        progress: called after each image with the images done and the images in all.

    Raises:
        Problem: an argument is out of range, or ``out`` holds something else or cannot be written.
    """
    recipe, out = Recipe(images=images, seed=seed, imgsz=imgsz), Path(out)
    if not _holds(out, recipe):
        _create(out, recipe, progress)
    return out / "data.yaml"


def _holds(out: Path, recipe: Recipe) -> bool:
    """Return whether ``out`` holds this data set already; raise a Problem if it holds anything else."""
    if not os.path.lexists(out):
        return False
    if not out.is_dir():
        raise Problem(out, "is not a folder", remedy="choose another folder")
    if not any(out.iterdir()):
        return False
    found = _read_record(out)
    if found != asdict(recipe):
        what = "holds other files" if found is None else f"holds another data set ({_words(found)})"
        raise Problem(out, what, expected=_words(asdict(recipe)), remedy="choose another folder or delete this one")
    _check_complete(out, recipe)
    return True


def _read_record(out: Path) -> dict[str, int] | None:
    try:
        record = json.loads((out / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _words(record: dict[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items())


def _check_complete(out: Path, recipe: Recipe) -> None:
    for split, count in recipe.counts.items():
        for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
            found = len(list((out / kind / split).glob(f"*{suffix}")))
            if found != count:
                raise Problem(
                    out / kind / split,
                    f"holds {found} {suffix} files",
                    expected=str(count),
                    remedy=f"delete {out} and draw it again",
                )


def _create(out: Path, recipe: Recipe, progress: Progress | None) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(out.parent) as folder:
            _fill(folder, recipe, progress)
            folder.chmod(0o755)
            folder.replace(out)
    except OSError as error:
        raise Problem(out, f"cannot be written ({error.strerror})", remedy="choose another folder") from error


def _fill(folder: Path, recipe: Recipe, progress: Progress | None) -> None:
    for kind in ("images", "labels"):
        for split in SPLITS:
            (folder / kind / split).mkdir(parents=True)
    jobs = ((folder, recipe, split, i) for split, count in recipe.counts.items() for i in range(count))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for done, _ in enumerate(pool.map(_write_scene, jobs), 1):
                if progress is not None:
                    progress(done, recipe.images)
        finally:
            pool.shutdown(cancel_futures=True)
    described = {"train": "images/train", "val": "images/val", "calibration": "images/calibration"}
    names = {"names": dict(enumerate(CLASSES))}
    (folder / "data.yaml").write_text(yaml.safe_dump(described | names, sort_keys=False), encoding="utf-8")
    (folder / _RECORD).write_text(json.dumps(asdict(recipe)) + "\n", encoding="utf-8")


def _write_scene(job: tuple[Path, Recipe, str, int]) -> None:
    folder, recipe, split, index = job
    drawn = recipe.draw(split, index)
    (folder / "images" / split / f"{index:05}.jpg").write_bytes(_jpeg(drawn))
    (folder / "labels" / split / f"{index:05}.txt").write_text("".join(_label_lines(drawn)), encoding="utf-8")


def _jpeg(drawn: Scene) -> bytes:
    blue_first = np.ascontiguousarray(drawn.image[..., ::-1])
    return bytes(cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _label_lines(drawn: Scene) -> Iterator[str]:
    for sign in drawn.signs:
        left, top, right, bottom = sign.bounds
        centre = f"{(left + right) / 2:.6f} {(top + bottom) / 2:.6f}"
        yield f"{sign.label} {centre} {right - left:.6f} {bottom - top:.6f}\n"
