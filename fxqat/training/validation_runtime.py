"""What validation during training computes with: the runtime that the detector is for."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor

from fxqat.evaluation.exported_file import from_file
from fxqat.files import temporary_folder
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.runtime.exactness import target_here
from fxqat.runtime.exporters import export, suffix_of
from fxqat.runtime.integer_model import in_integers, lowered
from fxqat.targets import target_of

Predict = Callable[[Tensor], Any]
# Of yolov8n on 2 cores, export and session take 13 to 19 s whatever the size; an image of 640 pixels takes 0.26 s in
# torch's integers and 0.03 s in ONNX Runtime, one of 320 pixels 0.09 and 0.01. So a file pays from about 55 images of
# 640 pixels on, or 170 of 320. For LiteRT the export takes 40 s, and an image of 640 pixels 0.12 s. Both ways give the
# same codes. Pixels by the runtime; a runtime that is not here is never worth it.
WORTH_AN_EXPORT = {"ort": 50 * 640**2, "litert": 300 * 640**2}


def runtime(detector: Detector, *, images: int, size: ImageSize) -> Predict | None:
    """What the file exported from ``detector`` predicts: images (B, 3, height, width) in 0..1 give the final outputs.

    For more than a few images, on a CPU that computes it exactly, it is that file in the runtime; else its integers in
    torch. None where the runtime's arithmetic is not known, see ``fxqat.runtime.integer_model``.

    Args:
        detector: as it is now; later changes are not seen.
        images: how many are to come.
        size: of them.
    """
    int8 = lowered(detector)
    if int8 is None:
        return None
    on_cpu = next(detector.parameters()).device.type == "cpu"
    if on_cpu and _is_worth_an_export(int8, images * size.pixels):
        return _file(int8, size)
    return in_integers(int8).run


def _is_worth_an_export(int8: Detector, pixels: int) -> bool:
    """Whether there are enough pixels, and the runtime on this machine gives the codes that the integers give: else
    both ways would choose by other arithmetic."""
    target = target_of(int8.recipe.target)
    if target is None or pixels <= WORTH_AN_EXPORT.get(target.runtime, inf):
        return False
    return target_here(target)[0] is True


def _file(int8: Detector, size: ImageSize) -> Predict:
    with temporary_folder("fxqat-train-") as folder:
        path = export(int8, folder / f"epoch{suffix_of(int8)}", imgsz=size)
        return from_file(path, threads=torch.get_num_threads())
