"""verify: the codes of the fake-quant graph, the reference graph and runtimes, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize, SizeLike
from fxqat.passes.corrections.layerwise import silent
from fxqat.runtime.runtimes import chosen as chosen_runtimes
from fxqat.runtime.sessions import fixed_sizes
from fxqat.runtime.verify import Verification, verify_images
from fxqat.workflow.convert import convert
from fxqat.workflow.stage_checks import batches, expect

Files = Sequence[str | Path]
Progress = Callable[[int, int], None]


def verify(
    model: Detector,
    file: str | Path,
    data: str | Path | Iterable[Tensor],
    *,
    images_limit: int | None = 8,
    imgsz: SizeLike | None = None,
    batch: int = 1,
    progress: Progress | None = None,
    runtimes: str | Sequence[str] | None = None,
) -> Verification:
    """Run the same images through the fake-quant graph, the INT8 reference graph and the file's runtimes, and count
    differing codes.

    Args:
        model: the calibrated or trained detector, stage ``qat``.
        file: exported from it.
        data: as for ``calibrate``.
        images_limit: how many images.
        imgsz: one side, or height and width, as exported; by default what the file takes, or the model was trained or
            calibrated at.
        batch: images at a time, for a file that leaves it free.
        progress: called with images done and images in all.
        runtimes: names from ``fxqat.runtime.runtimes.RUNTIMES``, or a comma-separated list of them, or ``all``; those
            that are not installed are named in the result's ``missing``. By default ``ort``, or ``litert`` for a
            .tflite file.

    Raises:
        Problem: an unknown runtime, or none that is installed; a file that is not this model's; no image.
    """
    expect(model, "qat", "verify")
    here, missing = chosen_runtimes(runtimes, Path(file).suffix)
    if not here:
        raise Problem(
            "--runtimes", f"{missing[0].package} is not installed", remedy=f"pip install {missing[0].package}"
        )
    asked = None if imgsz is None else ImageSize.of(imgsz).checked(model.stride)
    taken, fixed = fixed_sizes(Path(file))
    shown, total, _ = batches(data, images_limit, asked or fixed or model.imgsz, taken or batch, model, None)
    int8, _ = convert(model)
    step = progress or silent
    found = verify_images(model, int8, Path(file), shown, lambda done: step(done, total), runtimes=here)
    return replace(found, missing=tuple(one.name for one in missing))
