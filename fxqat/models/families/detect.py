"""Detection: boxes and classes, by heads with or without NMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from fxqat.models.families.towers import BOXES, CLASSES, MAX_DETECTIONS, TowersAdapter
from fxqat.models.family import (
    Columns,
    Criterion,
    Family,
    FinalOutput,
    HeadSpec,
    Link,
    Metric,
    RawOutput,
    Shapes,
    imported,
)

SIDES = 4  # of a box


def head_spec(head: Any) -> HeadSpec:
    """The sizes of one of Ultralytics' heads with box and class towers."""
    end2end = getattr(head, "one2one_cv2", None) is not None
    return HeadSpec(
        classes=int(head.nc),
        kind=type(head).__name__,
        bins=int(head.reg_max),
        end2end=end2end,
        nms_free=end2end and bool(getattr(head, "end2end", False)),
    )


def raw_outputs(spec: HeadSpec) -> tuple[RawOutput, ...]:
    """Box and class logits. A head of one bin gives distances in the place of distributions."""
    boxes = RawOutput(
        key=BOXES.key,
        title="box logits",
        path=(BOXES.key,),
        link=Link.CATEGORICAL if spec.bins > 1 else Link.DISTANCE,
        groups=SIDES,
        loss="box",
    )
    scores = RawOutput(
        key=CLASSES.key,
        title="class logits",
        path=(CLASSES.key,),
        link=Link.BERNOULLI,
        confidence=True,
        loss="cls",
    )
    return boxes, scores


def final_outputs(spec: HeadSpec, *extra: Columns) -> tuple[FinalOutput, ...]:
    """(B, 4 + nc + extra, A); without NMS (B, M, 6 + extra), rows of box corners, score and class index."""
    boxes = Columns(key="boxes", size=SIDES, unit="px", axes="xy")
    if spec.nms_free:
        found = (
            Columns(key="confidence", size=1, unit="in confidences"),
            Columns(key="class", size=1, unit="in class indices"),
        )
        return (FinalOutput(name="output0", columns=(boxes, *found, *extra), axis=2),)
    scores = Columns(key="scores", size=spec.classes, unit="in scores")
    return (FinalOutput(name="output0", columns=(boxes, scores, *extra)),)


def average_precision(
    letter: str = "B", of: str = "", part: str = "box", matches: str = "tp", labels: str = "boxes"
) -> Metric:
    """Ultralytics' mean average precision of boxes (B), masks (M) or poses (P)."""
    return Metric(
        key=f"metrics/mAP50-95({letter})",
        title="mAP50-95",
        second=f"metrics/mAP50({letter})",
        second_title="mAP50",
        of=of,
        part=part,
        matches=matches,
        labels=labels,
    )


def head_attributes(spec: HeadSpec, stride: Tensor, gm: nn.Module) -> SimpleNamespace:
    """What losses of boxes read of a head."""
    return SimpleNamespace(nc=spec.classes, reg_max=spec.bins, stride=stride, max_det=MAX_DETECTIONS)


def criterion(loss: Callable[[HeadSpec], str]) -> Callable[[Any, HeadSpec], Criterion]:
    """A family's ``criterion``: Ultralytics' loss of one branch, whose class in ``ultralytics.utils.loss`` is
    ``loss(spec)``, or, of a head with two branches, Ultralytics' weighted sum of both."""

    def made(model: Any, spec: HeadSpec) -> Criterion:
        kind = imported(f"ultralytics.utils.loss.{loss(spec)}")
        found: Criterion = imported("ultralytics.utils.loss.E2ELoss")(model, kind) if spec.end2end else kind(model)
        return found

    return made


def metadata(spec: HeadSpec) -> dict[str, Any]:
    """Whether a file's rows are final detections."""
    return {"end2end": spec.nms_free}


def described(found: Mapping[str, str], classes: int, shapes: Shapes) -> HeadSpec:
    """A head as a file's metadata tell of it."""
    nms_free = found.get("end2end", "False") == "True"
    return HeadSpec(classes=classes, end2end=nms_free, nms_free=nms_free)


DETECT = Family(
    task="detect",
    model="ultralytics.nn.tasks.DetectionModel",
    heads={"Detect": TowersAdapter, "v10Detect": TowersAdapter},
    spec=head_spec,
    raw=raw_outputs,
    final=final_outputs,
    metrics=(average_precision(),),
    trainer="ultralytics.models.yolo.detect.DetectionTrainer",
    validator="ultralytics.models.yolo.detect.DetectionValidator",
    head=head_attributes,
    criterion=criterion(lambda spec: "v8DetectionLoss"),
    metadata=metadata,
    described=described,
)
