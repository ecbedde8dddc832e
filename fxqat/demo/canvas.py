"""A picture under construction: polygons painted at three times the final resolution."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fxqat.demo.shapes import Polygon

Colour = tuple[int, int, int]
Image = NDArray[np.uint8]

WIDTH, HEIGHT = 480, 360
"""The drawing's own units: a scene is composed on 480 x 360, whatever the size of the picture."""
FINE = 3
_SHIFT = 4


class Canvas:
    """An RGB picture of ``imgsz`` x ``imgsz * 3 / 4`` pixels, painted in units of 1/480 of its width.

    Only OpenCV's integer polygon fill touches the pixels, at 3 x 3 samples a pixel and vertices on a grid of 1/48
    pixel, so that two machines paint the same bytes. While ``owner`` is a number, ``owners`` keeps for each sample who
    painted it last.
    """

    def __init__(self, imgsz: int = WIDTH) -> None:
        self.scale = imgsz / WIDTH
        self.samples: Image = np.zeros((imgsz * 3 // 4 * FINE, imgsz * FINE, 3), np.uint8)
        self.owners: Image = np.zeros(self.samples.shape[:2], np.uint8)
        self.owner: int | None = None

    def paint(self, figure: Polygon, colour: Colour) -> None:
        """Fill ``figure`` with an opaque colour (RGB, 0..255)."""
        grid = [self._grid(figure)]
        cv2.fillPoly(self.samples, grid, colour, cv2.LINE_8, _SHIFT)
        if self.owner is not None:
            cv2.fillPoly(self.owners, grid, self.owner, cv2.LINE_8, _SHIFT)

    def visible(self, figure: Polygon, owner: int) -> float:
        """Return the share of ``figure``, the part inside the picture, whose topmost paint is of ``owner``."""
        mask = np.zeros(self.owners.shape, np.uint8)
        cv2.fillPoly(mask, [self._grid(figure)], 1, cv2.LINE_8, _SHIFT)
        inside = mask.astype(bool)
        return float((self.owners[inside] == owner).sum() / max(inside.sum(), 1))

    def glaze(self, figure: Polygon, colour: Colour, opacity: int) -> None:
        """Blend ``colour`` over ``figure`` with an opacity of 0..256 parts of 256."""
        grid = self._grid(figure)
        (left, top), (right, bottom) = grid.min(0) >> _SHIFT, grid.max(0) >> _SHIFT
        left, top = max(int(left), 0), max(int(top), 0)
        window = self.samples[top : max(int(bottom) + 2, 0), left : max(int(right) + 2, 0)]
        if window.size == 0:
            return
        mask = np.zeros(window.shape[:2], np.uint8)
        cv2.fillPoly(mask, [grid], 1, cv2.LINE_8, _SHIFT, (-left, -top))
        inside = mask.astype(bool)
        window[inside] = blend(window[inside], np.array(colour, np.uint8), opacity)

    def rows(self, top: float, bottom: float, first: Colour, last: Colour) -> None:
        """Fill the rows from ``top`` to ``bottom`` with a gradient."""
        start, stop = (round(y * self.scale * FINE) for y in (top, bottom))
        down = np.arange(stop - start)[:, None]
        steps = (np.array(first) * (stop - start - down) + np.array(last) * down) // max(stop - start, 1)
        self.samples[start:stop] = steps.astype(np.uint8)[:, None]

    def picture(self) -> Image:
        """Return the picture, uint8 of shape (height, width, 3), RGB: the rounded mean of each pixel's samples."""
        return reduce_samples(self.samples)

    def _grid(self, figure: Polygon) -> NDArray[np.int32]:
        fine = figure * (self.scale * FINE) - 0.5
        return np.rint(fine * (1 << _SHIFT)).astype(np.int32)


def blend(under: Image, over: Image, opacity: int) -> Image:
    """Return ``over`` laid on ``under`` with an opacity of 0..256 parts of 256, in integers."""
    mixed = under.astype(np.uint16) * (256 - opacity) + over.astype(np.uint16) * opacity
    return (mixed >> 8).astype(np.uint8)


def reduce_samples(samples: Image) -> Image:
    """Return the rounded mean of every 3 x 3 samples."""
    tall = np.add(samples[0::3], samples[1::3], dtype=np.uint16) + samples[2::3]
    total = tall[:, 0::3] + tall[:, 1::3] + tall[:, 2::3]
    return ((total + 4) // 9).astype(np.uint8)
