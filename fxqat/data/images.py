"""Images as the network sees them: found, letterboxed exactly as Ultralytics' validator does, in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fxqat.data import dataset
from fxqat.data.batches import CHANNELS
from fxqat.errors import Problem
from fxqat.models.image_size import ImageSize, SizeLike

_MAX_PATH = 4096  # bytes, of Linux
_LFS = b"version https://git-lfs"
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
STRIDE = 32  # what Ultralytics rounds sizes to at least, also where a network's coarsest level has a smaller one


class Unreadable(Exception):
    """An image file that cannot be decoded, or only in part; the text says why, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.split()))


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """Paths of images in a fixed order.

    ``source`` is the YAML, folder, list or image they come from, ``split`` its split (None where it has none),
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
        split: which split of a YAML, or of a folder that has a folder for each; ``train`` by default, since that is
            what calibration may look at.
        limit: at most so many. Of n images, number ``i * n // limit`` is taken for each i, so they are spread evenly.

    Raises:
        Problem: nothing is there, the YAML is malformed or lacks the split, or no file is an image.
    """
    if limit is not None and limit < 1:
        raise Problem(f"limit {limit}", "asks for no image", expected="1 or more")
    place, wanted = dataset.find(data), split or "train"
    has_splits = dataset.is_yaml(place) or (place / wanted).is_dir()
    chosen = wanted if has_splits else None
    if dataset.is_yaml(place):
        paths = dataset.read(place).images(wanted)
    else:
        paths = dataset.images_at(place / wanted if has_splits else place)
    return ImageList(source=place, split=chosen, paths=tuple(spread(paths, limit)), total=len(paths))


def spread(paths: list[Path], limit: int | None) -> list[Path]:
    """``limit`` of the paths at even distances, the first among them; all of them without a limit."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def load_image(path: str | Path, imgsz: SizeLike, fit: str = "letterbox") -> Tensor:
    """Load one image as Ultralytics' validators do for a file of this size.

    Args:
        path: of the file.
        imgsz: pixels: one side of a square, or height and width.
        fit: ``letterbox``: the long side is scaled to the longer one of ``imgsz`` (bilinear, sizes rounded up), the
            result, where it is still too high or too wide, once more to fit, and the rest is filled with grey 114 on
            both sides; ``crop``: the short side is scaled to that of a square, and the middle is taken; for another
            shape the image is stretched to it.

    Returns:
        Tensor (3, height, width), float32 in 0..1, RGB.

    Raises:
        Unreadable: the file is missing, no image, cut short, or not of bytes.
        Problem: a side of imgsz is not a multiple of 32.
    """
    size = ImageSize.of(imgsz).checked(STRIDE)
    return _FITS[fit](read_pixels(path), size)


def _letterboxed(pixels: np.ndarray, size: ImageSize) -> Tensor:
    from ultralytics.data.augment import LetterBox

    boxed: Any = LetterBox(new_shape=size.shape, scaleup=False)(image=_scale(pixels, size.longest))
    planes = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(planes).float() / 255


def _cropped(pixels: np.ndarray, size: ImageSize) -> Tensor:
    from PIL import Image
    from ultralytics.data.augment import classify_transforms

    found: Tensor = classify_transforms(size.plain)(Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])))
    return found


_FITS: dict[str, Callable[[np.ndarray, ImageSize], Tensor]] = {"letterbox": _letterboxed, "crop": _cropped}


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
        raise Unreadable(_what_else(path))
    if picture.dtype != np.uint8 or picture.shape[2] != CHANNELS:
        raise Unreadable(f"holds {picture.shape[2]} channels of {picture.dtype}, not 3 of bytes")
    return picture


def batches(
    images: ImageList,
    imgsz: SizeLike,
    batch: int,
    on_skip: Callable[[Path, str], None] | None = None,
    *,
    fit: str = "letterbox",
) -> Iterator[Tensor]:
    """Yield the images in order as tensors (N, 3, height, width), float32 in 0..1; N is ``batch``, or less at the
    end.

    Images are fitted as ``load_image`` says. An unreadable one is left out and reported to ``on_skip(path, why)``;
    batches stay full.

    Raises:
        Problem: a side of imgsz is not a multiple of 32, ``batch`` is below 1, or no image at all could be read.
    """
    size = ImageSize.of(imgsz).checked(STRIDE)
    if batch < 1:
        raise Problem(f"batch {batch}", "holds no image", expected="1 or more")
    return _batches(images, size, batch, on_skip or (lambda path, why: None), fit)


def _batches(
    images: ImageList, size: ImageSize, batch: int, on_skip: Callable[[Path, str], None], fit: str
) -> Iterator[Tensor]:
    waiting, skipped = list[Tensor](), list[tuple[Path, str]]()
    empty = True
    for path in images.paths:
        try:
            waiting.append(load_image(path, size, fit))
        except Unreadable as error:
            skipped.append((path, str(error)))
            on_skip(*skipped[-1])
        if len(waiting) == batch:
            yield torch.stack(waiting)
            waiting, empty = [], False
    if waiting:
        yield torch.stack(waiting)
    elif empty:
        raise no_readable_image(images.source, skipped)


def no_readable_image(source: Path, skipped: Sequence[tuple[Path, str]]) -> Problem:
    """The Problem for a source of which every image was skipped: ``skipped`` are their paths and why."""
    path, why = skipped[0]
    what = f"holds no readable image ({len(skipped)} tried; {path.name}: {why})"
    return Problem(source, what, remedy="check that the files are complete")


def _what_else(path: Path) -> str:
    """What a file is that is no image. Git writes small texts in place of links and of large files where it is not set
    up for them."""
    with path.open("rb") as file:
        start = file.read(_MAX_PATH)
    if start.startswith(_LFS):
        return "a pointer of Git LFS, not the image: run git lfs pull"
    text = start.decode("utf-8", errors="replace")
    if "/" in text and text.isprintable() and Path(text).suffix[1:].lower() in dataset.SUFFIXES:
        return f"a link that git wrote as a text file, to {text}: put that image in its place"
    return "not an image"


def _scale(picture: np.ndarray, side: int) -> np.ndarray:
    """As BaseDataset.load_image: the long side to ``side``, sizes rounded up but never past it."""
    height, width = picture.shape[:2]
    ratio = side / max(height, width)
    if ratio == 1:
        return picture
    size = (min(math.ceil(width * ratio), side), min(math.ceil(height * ratio), side))
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
