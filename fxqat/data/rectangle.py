"""Ultralytics' data sets with all images in one rectangle, as a file of that input size is given them.

Ultralytics' own rectangular mode (``rect``) chooses a shape for each batch; its transforms take the shape of an image
from the image's labels, which is all that is used here.
"""

from __future__ import annotations

from typing import Any

from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.models.image_size import ImageSize

# isort: split
from ultralytics.data.augment import LetterBox


def in_rectangle(images: Any, size: ImageSize) -> Any:
    """Ultralytics' data set ``images``, made for the longer side of ``size``, with every image letterboxed to ``size``;
    as it is where that is a square.

    Images that are mixed of several (mosaic and its like) cannot be had in a rectangle.
    """
    if not size.is_square:
        images.transforms.insert(0, _Rectangle(size, fits=images.augment))
    return images


class _Rectangle:
    """Tells the transforms behind it the shape of an image.

    Args:
        size: that shape.
        fits: whether the image is letterboxed here, since no letterbox stands behind: augmentation only moves what was
            scaled to the longer side, and would cut off what is beyond the shorter one.
    """

    def __init__(self, size: ImageSize, *, fits: bool) -> None:
        self.shape = size.shape
        self.letterbox = LetterBox(new_shape=size.shape, scaleup=False) if fits else None

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        if self.letterbox is not None:
            labels = self.letterbox(labels)
        labels["rect_shape"] = self.shape
        return labels
