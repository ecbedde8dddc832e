"""calibrate: ranges from real images, and the corrections of the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from fxqat.checkpoint.network import policy_of
from fxqat.data.batches import Batches
from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize, SizeLike
from fxqat.passes.calibrate import observe, use_method
from fxqat.passes.corrections import registry
from fxqat.passes.corrections.layerwise import Images, silent
from fxqat.workflow.stage_checks import batches, expect, expect_uncorrected

Progress = Callable[[int, int], None]


def calibrate(
    model: Detector,
    data: str | Path | Iterable[Tensor],
    *,
    images_limit: int | None = None,
    imgsz: SizeLike | None = None,
    batch: int = 8,
    method: str | None = None,
    corrections: Sequence[str] | None = None,
    progress: Progress | None = None,
    on_skip: Callable[[Path, str], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Detector:
    """Choose every range from real images, in place, with the observers that the policy names, and run its corrections.

    Ranges of an earlier calibration are forgotten; where this one is refused, they stay.

    Args:
        model: a detector at stage ``qat``.
        data: data set YAML (its train split), image folder, list file, or a list of batches
            (B, 3, H, W), float32 in 0..1 or uint8.
        images_limit: so many images, evenly spread; all by default.
        imgsz: one side, or height and width, multiples of the model's stride; by default as trained or calibrated, or
            640.
        batch: images at a time.
        method: ``standard``, ``percentile``, ``entropy`` or ``mse`` for every activation, instead of the policy's; by
            default what the last calibration used.
        corrections: by name (``fxqat.policy.correction_names``), with default options, instead of the policy's.
        progress: called with steps done and steps in all: images, then what each correction counts.
        on_skip: called with the path of an image that cannot be read, and why.
        on_step: called with the name of each correction before it starts.

    Raises:
        Problem: no data, an unknown method or correction, a site that saw NaN or infinity, corrections that ran
            already, or that find no data to read again.
    """
    expect(model, "qat", "calibrate")
    expect_uncorrected(model)
    method = _observed_by(model, method)
    chosen, step = _corrections(model, corrections), progress or silent
    size = model.imgsz if imgsz is None else ImageSize.of(imgsz)
    shown, total, name = batches(data, images_limit, size, batch, model, on_skip)
    _expect_again(shown, chosen)
    corrected = partial(registry.correct, model.gm, chosen, progress=step, on_step=on_step)
    again = Images(read=lambda: batches(data, images_limit, size, batch, model, None)[0], total=total)
    reports = corrected(again, before_ranges=True)
    seen, largest = _observed(model, shown, total, step)
    reports += corrected(replace(again, total=seen), before_ranges=False)
    how = {"data": name, "images": seen, "imgsz": largest.plain, "method": method, "corrections": reports}
    return model.with_graph(model.gm, calibration={key: value for key, value in how.items() if value})


def _corrections(model: Detector, names: Sequence[str] | None) -> tuple[registry.Correction, ...]:
    """Those with ``names``, or the policy's."""
    return registry.corrections(policy_of(model.recipe)) if names is None else registry.named(names)


def _observed_by(model: Detector, method: str | None) -> str | None:
    """Let every activation be observed by ``method``, or by that of the last calibration; None leaves the policy's."""
    method = method or model.recipe.calibration.get("method")
    if method is not None:
        use_method(model.gm, method)
    return method


def _observed(model: Detector, shown: Iterable[Tensor], total: int, step: Progress) -> tuple[int, ImageSize]:
    """Let every observer see ``shown``: how many images they are, and the least size that holds them."""
    seen, shapes = 0, set[tuple[int, int]]()
    for seen in observe(model.gm, _noting_shapes(shown, shapes)):
        step(seen, max(total, seen))
    return seen, _enclosing(shapes)


def _expect_again(shown: Iterable[Tensor], chosen: Sequence[registry.Correction]) -> None:
    """Refuse batches that can be read only once, where there are corrections."""
    if chosen and isinstance(shown, Batches) and shown.once:
        raise Problem("data", "can be read only once, and corrections read it again", expected="a list of batches")


def _noting_shapes(batches: Iterable[Tensor], shapes: set[tuple[int, int]]) -> Iterator[Tensor]:
    """``batches``; ``shapes`` receives their heights and widths."""
    for batch in batches:
        shapes.add((batch.shape[2], batch.shape[3]))
        yield batch


def _enclosing(shapes: set[tuple[int, int]]) -> ImageSize:
    """The least size that holds images of all ``shapes``, (height, width)."""
    heights, widths = zip(*shapes, strict=True)
    return ImageSize(height=max(heights), width=max(widths))
