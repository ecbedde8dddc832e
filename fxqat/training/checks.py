"""What is refused before and during a training, each with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

from fxqat.data import dataset, images
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import check_classes
from fxqat.evaluation.predictor import Evaluated
from fxqat.models.detector import Detector
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.training import resume_state
from fxqat.training.config import TrainingConfig
from fxqat.workflow.stage_checks import expect_calibrated


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
            raise Problem(teacher.source.name, f"is at stage {teacher.stage}", expected="a float teacher")
        if dict(teacher.names) != dict(detector.names):
            raise Problem(teacher.source.name, "its classes are not those of the detector to train")
    elif plan.loss.needs_teacher:
        changed = [one["name"] for one in detector.recipe.calibration.get("corrections", ())]
        changed = [name for name in changed if name != "equalize"]  # the one that leaves the float function alone
        if changed or detector.recipe.training:
            by = ", ".join(changed) or "an earlier training"
            raise Problem(
                detector.source.name,
                f"its weights are no longer the float network's ({by}), so it cannot teach",
                remedy="give the float checkpoint as teacher (--teacher)",
            )


def check_devices(detector: Detector, plan: TrainingConfig) -> None:
    """Refuse on several devices what their processes could not be told, or would not agree about.

    Raises:
        Problem: a schedule that watches the mAP.
    """
    if "," not in plan.device:
        return
    where = f"device {plan.device}"
    if plan.schedule == "ReduceLROnPlateau":
        raise Problem(where, "ReduceLROnPlateau watches the mAP, which one process knows", remedy="use cosine")


def check_data(detector: Detector, plan: TrainingConfig) -> Path:
    """The data set's file, once its classes and images are known to fit.

    Raises:
        Problem: missing, no YAML, other classes, or a split without images.
    """
    images.check_imgsz(plan.imgsz, detector.stride)
    place = dataset.find(plan.data)
    if place.suffix not in dataset.YAML_SUFFIXES:
        raise Problem(place, "has no val split to choose the best epoch by", expected="a data set YAML")
    found = dataset.read(place)
    check_classes(Evaluated.of(detector, detector), found)
    for split in ("train", "val"):
        found.images(split)
    return place


def check_same(found: resume_state.State, start: str, plan: TrainingConfig, path: Path) -> None:
    """Refuse to resume another training.

    Raises:
        Problem: it began from another model, or other options.
    """
    if found.start != start:
        raise Problem(path, "is of a training that began from another model", remedy="train without --resume")
    now, then = resume_state.plain_json(plan.summary()), found.config
    changed = [name for name in now if now[name] != then.get(name)]
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
