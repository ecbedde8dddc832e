"""Images as the network sees them: found, letterboxed exactly as Ultralytics' validator does, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor

from fxqat.data import dataset
from fxqat.errors import Problem

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
STRIDE = 32  # what Ultralytics rounds sizes to at least, also where a network's coarsest level has a smaller one


class Unreadable(Exception):
    """An image file that cannot be decoded, or only in part; the text says why, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split()))


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """Paths of images in a fixed order.

    ``source`` is the YAML, folder, list or image they come from, ``split`` the YAML's split (None for the others),
    ``total`` how many there were before ``limit``.
    """

    source: Path
    split: str | None
    paths: tuple[Path, ...]
    total: int

    def __len__(self) -> int:
        return len(self.paths)


def image_paths(data: str | Path, *, split: str | None = None, limit: int | None = None) -> ImageList:
    """Find the images of ``data``: a data set YAML, an image folder, a list file or one image.

    Args:
        data: the path, or the name of a data set that Ultralytics ships.
        split: which split of a YAML; ``train`` by default, since that is what calibration may look at.
        limit: at most so many. Of n images, number ``i * n // limit`` is taken for each i, so they are spread evenly.

    Raises:
        Problem: nothing is there, the YAML is malformed or lacks the split, or no file is an image.
    """
    if limit is not None and limit < 1:
        raise Problem(f"limit {limit}", "asks for no image", expected="1 or more")
    place = dataset.find(data)
    is_yaml = dataset.is_yaml(place)
    chosen = (split or "train") if is_yaml else None
    paths = dataset.read(place).images(cast(str, chosen)) if is_yaml else dataset.images_at(place)
    return ImageList(source=place, split=chosen, paths=tuple(spread(paths, limit)), total=len(paths))


def spread(paths: list[Path], limit: int | None) -> list[Path]:
    """``limit`` of the paths at even distances, the first among them; all of them without a limit."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def check_imgsz(imgsz: int, stride: int = STRIDE) -> int:
    """Return ``imgsz`` where a network whose coarsest level has ``stride`` accepts it.

    Raises:
        Problem: it is not a positive multiple of ``stride``.
    """
    if imgsz < stride or imgsz % stride:
        nearest = max(stride, round(imgsz / stride) * stride)
        raise Problem(f"imgsz {imgsz}", f"is not a multiple of {stride}", remedy=f"use {nearest}")
    return imgsz


def load_image(path: str | Path, imgsz: int, fit: str = "letterbox") -> Tensor:
    """Load one image as Ultralytics' validators do with ``rect=False``.

    Args:
        path: of the file.
        imgsz: pixels, square.
        fit: ``letterbox``: the long side is scaled to ``imgsz`` (bilinear, sizes rounded up), the rest is filled with
            grey 114 on both sides; ``crop``: the short side is scaled to it, and the middle is taken.

    Returns:
        Tensor (3, imgsz, imgsz), float32 in 0..1, RGB.

    Raises:
        Unreadable: the file is missing, no image, cut short, or not of bytes.
        Problem: imgsz is not a multiple of 32.
    """
    check_imgsz(imgsz)
    return _FITS[fit](read_pixels(path), imgsz)


def _letterboxed(pixels: np.ndarray, imgsz: int) -> Tensor:
    from ultralytics.data.augment import LetterBox

    boxed: Any = LetterBox(new_shape=(imgsz, imgsz), scaleup=False)(image=_scale(pixels, imgsz))
    planes = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(planes).float() / 255


def _cropped(pixels: np.ndarray, imgsz: int) -> Tensor:
    from PIL import Image
    from ultralytics.data.augment import classify_transforms

    found: Tensor = classify_transforms(imgsz)(Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])))
    return found


_FITS: dict[str, Callable[[np.ndarray, int], Tensor]] = {"letterbox": _letterboxed, "crop": _cropped}


def read_pixels(path: str | Path) -> np.ndarray:
    """Decode one image with Ultralytics' reader: (H, W, 3) uint8, BGR, upright.

    Raises:
        Unreadable: the file is missing, no image, cut short, or not of bytes.
    """
    from ultralytics.utils.patches import imread

    path = Path(path)
    if not path.is_file():
        raise Unreadable("no such file")
    if why := _cut_short(path):
        raise Unreadable(why)
    try:
        picture = imread(str(path))
    except Exception as error:  # decoders raise what they like on damaged files
        raise Unreadable(f"damaged: {error}") from error
    if picture is None:
        raise Unreadable("not an image")
    if picture.dtype != np.uint8 or picture.shape[2] != dataset.CHANNELS:
        raise Unreadable(f"holds {picture.shape[2]} channels of {picture.dtype}, not 3 of bytes")
    return picture


def batches(
    images: ImageList,
    imgsz: int,
    batch: int,
    on_skip: Callable[[Path, str], None] | None = None,
    *,
    fit: str = "letterbox",
) -> Iterator[Tensor]:
    """Yield the images in order as tensors (N, 3, imgsz, imgsz), float32 in 0..1; N is ``batch``, or less at the end.

    Images are fitted as ``load_image`` says. An unreadable one is left out and reported to ``on_skip(path, why)``;
    batches stay full.

    Raises:
        Problem: imgsz is not a multiple of 32, ``batch`` is below 1, or no image at all could be read.
    """
    check_imgsz(imgsz)
    if batch < 1:
        raise Problem(f"batch {batch}", "holds no image", expected="1 or more")
    return _batches(images, imgsz, batch, on_skip or (lambda path, why: None), fit)


def _batches(
    images: ImageList, imgsz: int, batch: int, on_skip: Callable[[Path, str], None], fit: str
) -> Iterator[Tensor]:
    waiting: list[Tensor] = []
    empty = True
    for path in images.paths:
        try:
            waiting.append(load_image(path, imgsz, fit))
        except Unreadable as error:
            on_skip(path, str(error))
        if len(waiting) == batch:
            yield torch.stack(waiting)
            waiting, empty = [], False
    if waiting:
        yield torch.stack(waiting)
    elif empty:
        raise no_readable_image(images.source, len(images))


def no_readable_image(source: Path, count: int) -> Problem:
    """The Problem for a source whose ``count`` images are all damaged."""
    return Problem(source, f"holds no readable image ({count} tried)", remedy="check that the files are complete")


def _scale(picture: np.ndarray, imgsz: int) -> np.ndarray:
    """As BaseDataset.load_image: the long side to imgsz, sizes rounded up but never past it."""
    height, width = picture.shape[:2]
    ratio = imgsz / max(height, width)
    if ratio == 1:
        return picture
    size = (min(math.ceil(width * ratio), imgsz), min(math.ceil(height * ratio), imgsz))
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def _cut_short(path: Path) -> str | None:
    """Why a JPEG is incomplete, or None; OpenCV would fill the rest with grey and say nothing, of other formats it
    reads nothing."""
    from PIL import JpegImagePlugin

    content = path.read_bytes()
    if not content.startswith(_JPEG_START) or content.endswith(_JPEG_END):
        return None
    try:  # the plugin, not Image.open: Ultralytics patches that one to pip install a HEIF decoder
        with JpegImagePlugin.JpegImageFile(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        return f"cut short: {error}"
    return None  # complete, with other bytes after its end
