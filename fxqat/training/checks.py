"""What is refused before and during a training, each with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

import torch

from fxqat.errors import Problem
from fxqat.models import offline  # before ultralytics
from fxqat.models.detector import Detector
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.training import resume_state
from fxqat.training.config import TrainingConfig
from fxqat.workflow.stage_checks import expect_calibrated

# isort: split
from ultralytics.utils.torch_utils import select_device

# Ultralytics' options that make one image of several, or prepare its data anew after they did.
_MIXING = ("mosaic", "mixup", "cutmix", "copy_paste", "close_mosaic")


def check_detector(detector: Detector) -> None:
    """Refuse what cannot be trained.

    Raises:
        Problem: an INT8 graph, or one without ranges.
    """
    if detector.stage != "float":
        expect_calibrated(detector, "train")


def check_teacher(detector: Detector, teacher: Detector | None, plan: TrainingConfig) -> None:
    """Refuse a teacher that is none.

    Raises:
        Problem: quantized, of other classes, or missing where corrections changed the weights.
    """
    if teacher is not None:
        if teacher.stage != "float":
            raise Problem(teacher.label, f"is at stage {teacher.stage}", expected="a float teacher")
        if dict(teacher.names) != dict(detector.names):
            raise Problem(teacher.label, "its classes are not those of the detector to train")
    elif plan.loss.needs_teacher:
        changed = [one["name"] for one in detector.recipe.calibration.get("corrections", ())]
        changed = [name for name in changed if name != "equalize"]  # the one that leaves the float function alone
        if changed or detector.recipe.training:
            by = ", ".join(changed) or "an earlier training"
            raise Problem(
                detector.label,
                f"its weights are no longer the float network's ({by}), so it cannot teach",
                remedy="give the float checkpoint as teacher (--teacher)",
            )


def check_devices(detector: Detector, plan: TrainingConfig) -> None:
    """Refuse a device that is not here, and on several what their processes could not be told, or would not agree on.

    Raises:
        Problem: no such device, or a schedule that watches the mAP.
    """
    if "," in plan.device and plan.schedule == "ReduceLROnPlateau":
        where = f"device {plan.device}"
        raise Problem(where, "ReduceLROnPlateau watches the mAP, which one process knows", remedy="use cosine")
    _check_present(plan.device)


def _check_present(device: str) -> None:
    numbers = [int(word) for word in device.split(",") if word.strip().isdigit()]
    count = torch.cuda.device_count()
    if numbers and max(numbers) >= count:
        has = f"GPUs 0 to {count - 1}" if count else "no GPU that PyTorch can use"
        raise Problem(
            f"device {device}", f"this machine has {has}", remedy="use cpu" if not count else "choose of them"
        )
    if numbers:
        return
    try:
        with offline.threads_kept():
            select_device(device)
    except (ValueError, RuntimeError, ImportError) as error:
        what = str(error).strip().splitlines()[0]
        raise Problem(f"device {device}", f"cannot be used ({what})", expected="cpu, 0, 0,1 ...") from error


def check_size(detector: Detector, plan: TrainingConfig) -> None:
    """Refuse a size that the network does not take, and what cannot be done to images of that shape."""
    if plan.imgsz.checked(detector.stride).is_square:
        return
    mixed = [name for name in _MIXING if plan.overrides().get(name)]
    if mixed or detector.fit != "letterbox":
        who = f"training with {' and '.join(mixed)}" if mixed else f"training of the task {detector.source.task}"
        remedy = f"use {plan.imgsz.longest}"
        raise Problem(f"imgsz {plan.imgsz}", "is no square", expected=f"one for {who}", remedy=remedy)


def check_same(found: resume_state.State, start: str, plan: TrainingConfig, images: str, path: Path) -> None:
    """Refuse to resume another training; a data set may have moved, as long as its images have the same names.

    Args:
        found: the state to go on from.
        start: digest of the detector to train.
        plan: how to go on.
        images: digest of the images' names.
        path: of the state, named in errors.

    Raises:
        Problem: it began from another model, other images, or other options.
    """
    if found.start != start:
        raise Problem(path, "is of a training that began from another model", remedy="train without --resume")
    now, then = resume_state.plain_json(plan.summary()), found.config
    if found.words.get("images", images) != images:
        what = f"is of a training on other images than {plan.data} has (then {then['data']})"
        raise Problem(path, what, remedy="give that data set, wherever it is now, or train without --resume")
    changed = [name for name in now if name != "data" and now[name] != then.get(name)]
    if changed:
        what = ", ".join(f"{name} was {then.get(name)!r}" for name in changed)
        raise Problem(path, f"is of a training with other options: {what}", remedy="give the same, or train anew")


def widest_site(detector: Detector) -> str:
    """A clause that names the site of the widest quantization range, or nothing in a float graph."""
    spans = {site: _span(fake) for site, fake in QuantGraph(detector.gm).quantizers().items()}
    if not spans:
        return ""
    # a scale that is no number is wider than any
    site = max(spans, key=lambda one: spans[one] if spans[one] == spans[one] else float("inf"))
    return f"; the widest range is {spans[site]:.3g}, at {site}"


def _span(fake: FakeQuantize) -> float:
    return float(fake.scale.detach().max()) * (fake.quant_max - fake.quant_min)
