"""calibrate: ranges from real images, and the corrections of the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fxqat.checkpoint.network import policy_of
from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.passes.calibrate import observe, use_method
from fxqat.passes.corrections.layerwise import Images, silent
from fxqat.passes.corrections.registry import correct, corrections
from fxqat.workflow.stage_checks import batches, expect

Progress = Callable[[int, int], None]


def calibrate(
    model: Detector,
    data: str | Path | Iterable[Tensor],
    *,
    images_limit: int | None = None,
    imgsz: int = 640,
    batch: int = 8,
    method: str | None = None,
    progress: Progress | None = None,
    on_skip: Callable[[Path, str], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Detector:
    """Choose every range from real images, in place, with the observers that the policy names, and run its corrections.

    Args:
        model: a detector at stage ``qat``.
        data: data set YAML (its train split), image folder, list file, or batches (B, 3, H, W) in 0..1.
        images_limit: so many images, evenly spread; all by default.
        imgsz: pixels, square, a multiple of the model's stride.
        batch: images at a time.
        method: ``standard``, ``percentile``, ``entropy`` or ``mse`` for every activation, instead of the policy's; by
            default what the last calibration used.
        progress: called with steps done and steps in all: images, then what each correction counts.
        on_skip: called with the path of an image that cannot be read, and why.
        on_step: called with the name of each correction before it starts.

    Raises:
        Problem: no data, an unknown method, a site that saw NaN or infinity, or corrections without data that can be
            read again.
    """
    expect(model, "qat", "calibrate")
    method = method or model.recipe.calibration.get("method")
    if method is not None:
        use_method(model.gm, method)
    chosen = corrections(policy_of(model.recipe))
    shown, total, name = batches(data, images_limit, imgsz, batch, model.stride, on_skip)
    if chosen and iter(shown) is data:
        raise Problem("data", "can be read only once, and corrections read it again", expected="a list of batches")
    step = progress or silent
    corrected = partial(correct, model.gm, chosen, progress=step, on_step=on_step)
    again = Images(read=lambda: batches(data, images_limit, imgsz, batch, model.stride, None)[0], total=total)
    reports = corrected(again, before_ranges=True)
    seen = 0
    for seen in observe(model.gm, shown):
        step(seen, max(total, seen))
    reports += corrected(replace(again, total=seen), before_ranges=False)
    how: dict[str, Any] = {"data": name, "images": seen, "imgsz": imgsz}
    how.update({"method": method} if method else {}, **({"corrections": reports} if chosen else {}))
    return model.with_graph(model.gm, calibration=how)
