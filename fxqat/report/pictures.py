"""Images with what two models found on them, small enough to lie in a page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fxqat.data import images
from fxqat.evaluation.predictor import Predictor
from fxqat.models.image_size import ImageSize
from fxqat.report.detections import Agreement, Detection, Pair, paired
from fxqat.report.predictions import predict

LONG_SIDE, QUALITY = 480, 76  # pixels, JPEG
LINE = 16  # pixels from a class of a whole image to the next
SEEN = 0.25  # visibility from which a key point is drawn, as Ultralytics does
# Between which of the 17 key points of a person in COCO there is a bone; of other key points nothing is known.
BONES: Mapping[int, tuple[tuple[int, int], ...]] = {
    17: (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8)),
        *((7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    )
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One prediction as it is drawn, in pixels of the picture.

    Attributes:
        x: of its left end, y: of its top; its words stand there.
        y: see x.
        width: of its box; 0 where no upright box is drawn.
        height: likewise.
        name: of its class.
        score: 0..1.
        fate: kept, lost or added.
        paths: what else is drawn, as SVG writes it, by what it is: ``mask``, ``turned``, ``bones``, ``points``.
    """

    x: float
    y: float
    width: float
    height: float
    name: str
    score: float
    fate: str
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image.

    Attributes:
        name: of its file.
        jpeg: in base64.
        width: in pixels.
        height: in pixels.
        before: marks of the float model.
        after: of the quantized one.
        found: detections of each, by the same words.
        kept: detections of float that the quantized model has too.
    """

    name: str
    jpeg: str
    width: int
    height: int
    before: tuple[Mark, ...]
    after: tuple[Mark, ...]
    found: Mapping[str, int]
    kept: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Some pictures, and the agreement over all images.

    Attributes:
        pictures: see there.
        agreement: see there.
        chosen: how the pictures were chosen, a sentence; empty where every image is shown.
    """

    pictures: tuple[Picture, ...]
    agreement: Agreement
    chosen: str = ""


def look(
    paths: Sequence[Path],
    before: Predictor,
    after: Predictor,
    *,
    imgsz: ImageSize,
) -> Iterator[tuple[Path, Pair]]:
    """Each image with what both models find on it.

    Args:
        paths: images; those that cannot be read are left out.
        before: the float model.
        after: the quantized one.
        imgsz: of the images.
    """
    for path in paths:
        try:
            image = images.load_image(path, imgsz, before.family.fit)
        except images.Unreadable:
            continue
        yield path, (predict(before, image), predict(after, image))


def picture(path: Path, pair: Pair, names: Mapping[int, str], imgsz: ImageSize) -> Picture:
    """The image at ``path`` with what two models found on it, letterboxed to ``imgsz``."""
    pixels = images.read_pixels(path)
    height, width = pixels.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    small = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    ratio = min(imgsz.height / height, imgsz.width / width)  # as load_image, which scales up and down
    pad = ((imgsz.width - width * ratio) / 2, (imgsz.height - height * ratio) / 2)
    place = _Place(factor=scale / ratio, left=pad[0], top=pad[1], names=names)
    both = [(one, other) for one, other in paired(*pair) if other is not None]
    kept = {id(one) for couple in both for one in couple}
    before = [mark for one in pair[0] for mark in place.marks(one, "kept" if id(one) in kept else "lost")]
    after = [mark for one in pair[1] for mark in place.marks(one, "kept" if id(one) in kept else "added")]
    return Picture(
        name=path.name,
        jpeg=_jpeg(small),
        width=small.shape[1],
        height=small.shape[0],
        before=tuple(before),
        after=tuple(after),
        found={"before": len(pair[0]), "after": len(pair[1])},
        kept=len(both),
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """From pixels of the letterboxed input to pixels of the picture."""

    factor: float
    left: float
    top: float
    names: Mapping[int, str]

    def marks(self, one: Detection, fate: str) -> list[Mark]:
        """The mark of an object; or one for each class of a whole image, of which the first counts."""
        if one.box is None:
            guesses = [(one.index, one.score, fate), *((index, score, "kept") for index, score in one.others)]
            return [self._line(row, *guess) for row, guess in enumerate(guesses)]
        (x, y), (right, bottom) = self.moved(np.array(one.box).reshape(2, 2)).tolist()
        width, height = (0.0, 0.0) if one.corners else (right - x, bottom - y)
        name, paths = self._name(one.index), self._paths(one)
        return [Mark(x=x, y=y, width=width, height=height, name=name, score=one.score, fate=fate, paths=paths)]

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Points (N, 2) in the picture."""
        found: np.ndarray = (points - (self.left, self.top)) * self.factor
        return found

    def _line(self, row: int, index: int, score: float, fate: str) -> Mark:
        y = LINE * (row + 1) + 4.0
        return Mark(x=2.0, y=y, width=0.0, height=0.0, name=self._name(index), score=score, fate=fate)

    def _name(self, index: int) -> str:
        return self.names.get(index, str(index))

    def _paths(self, one: Detection) -> dict[str, str]:
        found: dict[str, str] = {}
        if one.mask is not None:
            found["mask"] = "".join(_path(self.moved(line), closed=True) for line in outlines(one.mask))
        if one.corners:
            found["turned"] = _path(self.moved(np.array(one.corners)), closed=True)
        if one.points is not None:
            found.update(self._skeleton(one.points))
        return {key: path for key, path in found.items() if path}

    def _skeleton(self, points: np.ndarray) -> dict[str, str]:
        seen = np.asarray(points[:, 2] >= SEEN if points.shape[1] > 2 else points.any(1))
        places = self.moved(points[:, :2])
        bones = [(a, b) for a, b in BONES.get(len(points), ()) if seen[a] and seen[b]]
        dots = (_path(places[[index, index]], closed=False) for index in np.flatnonzero(seen))
        return {
            "bones": "".join(_path(places[list(bone)], closed=False) for bone in bones),
            "points": "".join(dots),
        }


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of the areas in a mask (H, W) bool, each (N, 2), x and y, within half a pixel of it."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    # a contour runs through the middles of border pixels, half a pixel inside the border
    lines = [cv2.approxPolyDP(one, 0.5, closed=True)[:, 0] + 0.5 for one in found]
    return [line for line in lines if len(line) > 2]


def _path(points: np.ndarray, *, closed: bool) -> str:
    """A line through ``points`` (N, 2), as SVG writes it."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist())
    return f"M{steps}{'Z' if closed else ''}"


def _jpeg(pixels: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return base64.b64encode(data.tobytes()).decode()
