"""Detections drawn by Ultralytics, so that a picture shows what its users see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fxqat.files import replacing
from fxqat.models import offline
from fxqat.models.image_size import ImageSize, SizeLike

_GAP, _BAR = 6, 28  # pixels between pictures, and of the title above a column
_QUALITY = 80  # of a .jpg, 0 to 100


def side_by_side(
    models: Sequence[tuple[str, Path]], images: Sequence[Path], out: Path, *, imgsz: SizeLike, conf: float = 0.4
) -> Path:
    """Write a picture with a row for each image and a column for each (title, .pt or .onnx) in ``models``."""
    offline.quiet()
    columns = [_column(title, path, images, ImageSize.of(imgsz), conf) for title, path in models]
    with replacing(out) as temporary:
        cv2.imwrite(str(temporary), np.hstack(columns), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return out


def _column(title: str, path: Path, images: Sequence[Path], imgsz: ImageSize, conf: float) -> np.ndarray:
    from ultralytics import YOLO

    how = {"imgsz": imgsz.plain, "conf": conf, "verbose": False, "rect": False}
    found = YOLO(path, task="detect").predict(list(images), **how)
    drawn = [np.pad(one.plot(line_width=1), ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for one in found]
    bar = np.full((_BAR, drawn[0].shape[1], 3), 255, np.uint8)
    cv2.putText(bar, title, (4, _BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([bar, *drawn])
