"""Images with what two detectors found on them, small enough to lie in a page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fxqat.data import images
from fxqat.evaluation.predictor import Predictor
from fxqat.models.image_size import ImageSize
from fxqat.report.detections import Agreement, Detection, agreement, detect, paired

LONG_SIDE, QUALITY = 480, 76  # pixels, JPEG


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box (x, y, width, height) in pixels of the picture, its words, and what became of it: kept, lost or added."""

    x: float
    y: float
    width: float
    height: float
    name: str
    score: float
    fate: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image: JPEG in base64, its size in pixels, and the marks of the float and of the quantized detector."""

    name: str
    jpeg: str
    width: int
    height: int
    before: tuple[Mark, ...]
    after: tuple[Mark, ...]

    @property
    def kept(self) -> int:
        """Detections that both have."""
        return sum(mark.fate == "kept" for mark in self.before)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Some pictures, and the agreement over all images."""

    pictures: tuple[Picture, ...]
    agreement: Agreement


def look(
    paths: Sequence[Path],
    before: Predictor,
    after: Predictor,
    names: Mapping[int, str],
    *,
    imgsz: ImageSize,
    count: int,
) -> Iterator[Shown]:
    """Run both detectors over the images; what is known so far is yielded after each.

    Args:
        paths: images; those that cannot be read are left out.
        before: the float detector.
        after: the quantized one.
        names: of the classes.
        imgsz: of the images.
        count: so many of them are pictured: the first with anything on them.
    """
    found: list[tuple[list[Detection], list[Detection]]] = []
    pictures: list[Picture] = []
    for path in paths:
        try:
            image = images.load_image(path, imgsz)
        except images.Unreadable:
            continue
        pair = detect(before, image), detect(after, image)
        found.append(pair)
        if len(pictures) < count and any(pair):
            pictures.append(_picture(path, pair, names, imgsz))
        yield Shown(pictures=tuple(pictures), agreement=agreement(found))


def _picture(
    path: Path, pair: tuple[list[Detection], list[Detection]], names: Mapping[int, str], imgsz: ImageSize
) -> Picture:
    pixels = images.read_pixels(path)
    height, width = pixels.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    small = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    ratio = min(imgsz.height / height, imgsz.width / width)  # as load_image, which scales up and down
    pad = ((imgsz.width - width * ratio) / 2, (imgsz.height - height * ratio) / 2)
    place = _Place(factor=scale / ratio, left=pad[0], top=pad[1], names=names)
    both = [(one, other) for one, other in paired(*pair) if other is not None]
    kept = {id(one) for couple in both for one in couple}
    before = tuple(place.mark(one, "kept" if id(one) in kept else "lost") for one in pair[0])
    after = tuple(place.mark(one, "kept" if id(one) in kept else "added") for one in pair[1])
    return Picture(
        name=path.name, jpeg=_jpeg(small), width=small.shape[1], height=small.shape[0], before=before, after=after
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """From pixels of the letterboxed input to pixels of the picture."""

    factor: float
    left: float
    top: float
    names: Mapping[int, str]

    def mark(self, one: Detection, fate: str) -> Mark:
        x, y = (one.box[0] - self.left) * self.factor, (one.box[1] - self.top) * self.factor
        width, height = ((one.box[i + 2] - one.box[i]) * self.factor for i in (0, 1))
        name = self.names.get(one.index, str(one.index))
        return Mark(x=x, y=y, width=width, height=height, name=name, score=one.score, fate=fate)


def _jpeg(pixels: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode()
