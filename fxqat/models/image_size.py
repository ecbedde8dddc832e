"""The size of the images that a network takes: height and width, as every command, function and file states it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fxqat.errors import Problem

MAX_SIDE = 1 << 14  # pixels; what a file says beyond it is damage
_FORMS = "height and width in pixels, such as 640, 384,640 or 384x640"
_BETWEEN = re.compile(r"\s*[\s,xX]\s*")


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """Height and width in pixels.

    Raises:
        Problem: a side that is no whole number, or below 1.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for side in self.shape:
            if not isinstance(side, int) or isinstance(side, bool) or side < 1:
                raise _no_size(side)

    @classmethod
    def of(cls, value: SizeLike) -> ImageSize:
        """The size that ``value`` states: one side of a square, two sides, or either as text.

        Raises:
            Problem: it states none.
        """
        if isinstance(value, ImageSize):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        sides = [value] if isinstance(value, int) else value
        if not isinstance(sides, Sequence) or len(sides) not in (1, 2):
            raise _no_size(value)
        return cls(height=sides[0], width=sides[-1])

    @classmethod
    def parse(cls, text: str) -> ImageSize:
        """The size that ``text`` states: ``640``, ``384,640``, ``384x640``, ``384 640`` or ``[384, 640]``.

        Raises:
            Problem: it states none.
        """
        words = _BETWEEN.split(text.strip().removeprefix("[").removesuffix("]").strip())
        if not all(word.isascii() and word.isdigit() for word in words):
            raise _no_size(text)
        return cls.of([int(word) for word in words])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, as tensors (N, C, H, W) have them."""
        return self.height, self.width

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height == self.width

    @property
    def longest(self) -> int:
        """The longer side."""
        return max(self.shape)

    @property
    def pixels(self) -> int:
        """Pixels in all."""
        return self.height * self.width

    @property
    def plain(self) -> int | list[int]:
        """The size as JSON and Ultralytics have it: one side of a square, else height and width."""
        return self.height if self.is_square else [self.height, self.width]

    def checked(self, stride: int) -> ImageSize:
        """This size, where a network whose coarsest level has ``stride`` takes it.

        Raises:
            Problem: a side is not a multiple of ``stride``; with the nearest sizes below and above.
        """
        if not any(side % stride for side in self.shape):
            return self
        below, above = (self._rounded(stride, up) for up in (0, stride - 1))
        legal = [str(one) for one in dict.fromkeys((below, above))]
        raise Problem(f"imgsz {self}", f"is not a multiple of {stride}", remedy=f"use {' or '.join(legal)}")

    def _rounded(self, stride: int, up: int) -> ImageSize:
        height, width = (max(stride, (side + up) // stride * stride) for side in self.shape)
        return ImageSize(height=height, width=width)

    def __str__(self) -> str:
        return str(self.height) if self.is_square else f"{self.height}x{self.width}"


SizeLike = ImageSize | int | str | Sequence[int]
DEFAULT_SIZE = ImageSize(height=640, width=640)  # Ultralytics'


def _no_size(value: object) -> Problem:
    return Problem(f"imgsz {value}", "is no size of an image", expected=_FORMS)
