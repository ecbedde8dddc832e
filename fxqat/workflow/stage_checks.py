"""What the verbs are given: a detector at the right stage, and images to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from fxqat.data import images
from fxqat.data.batches import Batches
from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.passes.quant_graph import QuantGraph


def batches(
    data: str | Path | Iterable[Tensor],
    limit: int | None,
    size: ImageSize,
    batch: int,
    model: Detector,
    on_skip: Callable[[Path, str], None] | None,
) -> tuple[Iterable[Tensor], int, str]:
    """Batches (B, 3, H, W) for ``model``, how many images they are (0 where nobody counted), and a name for the data.

    Raises:
        Problem: the data or the size cannot be used.
    """
    if not isinstance(data, (str, Path)):
        return Batches(given=data, stride=model.stride), 0, "tensors"
    size.checked(model.stride)
    found = images.image_paths(data, limit=limit)
    read = images.batches(found, size, batch, on_skip or (lambda path, why: None), fit=model.fit)
    return read, len(found), Path(data).name


def expect(detector: Detector, stage: str, verb: str) -> None:
    """Refuse a detector at another stage than ``verb`` takes.

    Raises:
        Problem: with what to do first.
    """
    if detector.stage != stage:
        hints = {"float": "run fxqat prepare first", "qat": "", "int8": "take the .fxqat it was converted from"}
        raise Problem(
            detector.label,
            f"is at stage {detector.stage}",
            expected=f"stage {stage} for {verb}",
            remedy=hints[detector.stage],
        )


def expect_calibrated(detector: Detector, verb: str) -> None:
    """Refuse a detector whose ranges nobody chose.

    Raises:
        Problem: with what to do first.
    """
    expect(detector, "qat", verb)
    if not detector.recipe.calibration:
        raise Problem(
            detector.label,
            "was never calibrated",
            expected="a calibrated .fxqat",
            remedy="run fxqat calibrate first",
        )


def expect_quantized(detector: Detector, verb: str) -> None:
    """Refuse a detector that rounds nothing, as the policy ``float`` makes it: there is nothing to measure.

    Raises:
        Problem: with what to prepare instead.
    """
    if not QuantGraph(detector.gm).quantizers():
        raise Problem(
            detector.label,
            f"quantizes nothing (policy {detector.recipe.policy_name})",
            expected=f"a model with quantizers for {verb}",
            remedy="prepare it with another policy",
        )


def expect_uncorrected(detector: Detector) -> None:
    """Refuse to calibrate again what corrections changed: they cannot be undone, and would be applied twice.

    Raises:
        Problem: with the corrections, and what to calibrate instead.
    """
    if applied := [one["name"] for one in detector.recipe.calibration.get("corrections", ())]:
        raise Problem(
            detector.label,
            f"its weights were changed when it was calibrated ({', '.join(applied)})",
            expected="a detector that is not calibrated yet",
            remedy="take the .fxqat that fxqat prepare wrote",
        )
