"""Classification: one class for the whole image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.models.family import Columns, Family, FinalOutput, HeadSpec, Labels, Link, Metric, RawOutput, imported

LOGITS = "logits"


class ClassifyAdapter(nn.Module):
    """Ultralytics' Classify: ``(probabilities (B, nc), {"logits": (B, nc), "feats": [(B, C, H, W)]})``."""

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__()
        self.conv, self.pool, self.drop, self.linear = head.conv, head.pool, head.drop, head.linear

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Globs of sites, relative to the head, and their roles."""
        return {"linear": ("class_out",), "softmax": ("decode",)}

    def forward(self, features: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What the head returns in eval, and the map that it reads."""
        x = torch.cat(features, 1) if isinstance(features, list) else features
        logits = self.linear(self.drop(self.pool(self.conv(x)).flatten(1)))
        return logits.softmax(1), {LOGITS: logits, "feats": [x]}


def _raw(spec: HeadSpec) -> tuple[RawOutput, ...]:
    logits = RawOutput(
        key="scores",
        title="class logits",
        path=(LOGITS,),
        link=Link.CATEGORICAL,
        anchored=False,
        confidence=True,
        loss="cls",
    )
    return (logits,)


def _final(spec: HeadSpec) -> tuple[FinalOutput, ...]:
    scores = Columns(key="scores", size=spec.classes, unit="in probabilities")
    return (FinalOutput(name="output0", columns=(scores,), rank=2),)


CLASSIFY = Family(
    task="classify",
    model="ultralytics.nn.tasks.ClassificationModel",
    heads={"Classify": ClassifyAdapter},
    spec=lambda head: HeadSpec(classes=int(head.linear.out_features), kind="Classify", bins=1),
    raw=_raw,
    final=_final,
    metrics=(
        Metric(
            key="metrics/accuracy_top1",
            title="top-1",
            second="metrics/accuracy_top5",
            second_title="top-5",
            statistic="share",
            labels="labels",
        ),
    ),
    fit="crop",
    trainer="ultralytics.models.yolo.classify.ClassificationTrainer",
    validator="ultralytics.models.yolo.classify.ClassificationValidator",
    head=lambda spec, stride, gm: SimpleNamespace(nc=spec.classes),
    criterion=lambda model, spec: imported("ultralytics.utils.loss.v8ClassificationLoss")(),
    for_loss=lambda raw: raw[LOGITS],
    summed=False,
    labels=Labels.FOLDERS,
)
