"""The verbs: every arrow of the data flow as a function. The CLI is a thin layer over these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fxqat.checkpoint.model_io import load, save
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize, SizeLike
from fxqat.passes.corrections.layerwise import silent
from fxqat.workflow.calibrate import calibrate
from fxqat.workflow.convert import convert, export
from fxqat.workflow.prepare import prepare
from fxqat.workflow.retarget import retarget
from fxqat.workflow.verify import verify

__all__ = [
    "calibrate",
    "convert",
    "export",
    "get_critical_layers",
    "load",
    "prepare",
    "retarget",
    "save",
    "train",
    "verify",
]
Progress = Callable[[int, int], None]


def train(
    model: Detector,
    data: str | Path,
    *,
    folder: str | Path | None = None,
    teacher: Detector | str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    on_line: Callable[[str], None] | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Detector:
    """Train with the quantizers on (a float detector without); ``model`` stays as it is.

    The detector as given is validated first, as epoch 0. What comes back is the epoch of the highest validated
    mAP50-95: where no epoch beats epoch 0, the detector as given. ``recipe.training`` tells which.

    Args:
        model: calibrated, or float.
        data: data set YAML, with a labelled val split.
        folder: of the run, with its state after each epoch; NAME_qat in this folder by default.
        teacher: the float detector, or what ``load`` takes, for distillation; by default ``model`` with its quantizers
            off.
        resume: continue the run in ``folder`` after its last finished epoch.
        progress: called with batches done and batches in all.
        on_line: called with each line of a table, one an epoch.
        callbacks: see ``fxqat.training.callbacks``.
        options: ``epochs``, ``batch``, ``imgsz``, ``lsq``, ``unlabelled``, ``distill``, ``penalty`` and so on, see
            ``fxqat.training.config``, or any of Ultralytics' options; they overrule the policy's ``qat:`` section.

    Raises:
        Problem: an option, data set, detector or teacher that does not fit, a loss that is no number, or another
            training in ``folder``.
    """
    from fxqat.training.train import run

    teacher = load(teacher) if isinstance(teacher, (str, Path)) else teacher
    where = folder or f"{Path(model.source.name).stem}_qat"
    return run(
        model,
        data,
        where,
        teacher=teacher,
        resume=resume,
        progress=progress,
        on_line=on_line,
        callbacks=callbacks,
        options=options,
    )


def get_critical_layers(
    model: Detector,
    data: str | Path,
    *,
    share: float = 0.5,
    by: str = "probe",
    images_limit: int | None = 32,
    imgsz: SizeLike | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """The fewest sites that cause ``share`` of the harm quantization does, most harmful first, as a policy names them.

    Args:
        model: calibrated, stage ``qat``; what is in float there cannot be critical.
        data: data set YAML, image folder or list file.
        share: of the summed harm, 0..1.
        by: ``probe``, ``output`` or ``mAP``, see ``fxqat.sensitivity.sensitivity``.
        images_limit: so many images, evenly spread.
        imgsz: one side, or height and width, multiples of the model's stride; by default as trained or calibrated, or
            640.
        work: folder in which finished rows are kept.
        progress: called with steps done and steps in all.

    Raises:
        Problem: never calibrated, or no data.
    """
    from fxqat.sensitivity.sensitivity import SensitivityOptions, measure

    size = model.imgsz if imgsz is None else ImageSize.of(imgsz)
    asked = SensitivityOptions(by=by, images_limit=images_limit, imgsz=size)
    return measure(model, data, asked, work=work, progress=progress or silent).critical(share)
