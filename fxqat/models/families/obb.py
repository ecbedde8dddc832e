"""Oriented boxes: each box is turned by an angle about its centre."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.models.families import detect
from fxqat.models.families.decode import AnchorGrid, Levels
from fxqat.models.families.towers import BOXES, CLASSES, Tower, TowersAdapter
from fxqat.models.family import Columns, Family, FinalOutput, HeadSpec, LabelRow, Link, RawOutput, Shapes

ANGLES = Tower(path="cv4", joined="angle_logits", key="angle", role="angle_out")


class TurnedLevels(nn.Module):
    """Levels of one logit, joined and turned into angles from -45 to 135 degrees: ``(sigmoid(z) - 1/4) pi``."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = Levels()

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, 1, A), radians."""
        return (self.logits(maps).sigmoid() - 0.25) * math.pi


class TurnedBoxDecode(nn.Module):
    """Distances (B, 4, A) in cells and angles (B, 1, A) to boxes (B, 4, A): centre and size in pixels."""

    def __init__(self, strides: Tensor) -> None:
        super().__init__()
        self.points = AnchorGrid(strides, 0)
        self.strides = AnchorGrid(strides, 1)

    def forward(self, distances: Tensor, angles: Tensor, features: list[Tensor]) -> Tensor:
        """As Ultralytics' dist2rbox, times the strides."""
        left_top, right_bottom = distances.chunk(2, 1)
        cos, sin = torch.cos(angles), torch.sin(angles)
        across, down = ((right_bottom - left_top) / 2).chunk(2, 1)
        centre = torch.cat([across * cos - down * sin, across * sin + down * cos], 1) + self.points(*features)
        return torch.cat([centre, left_top + right_bottom], 1) * self.strides(*features)


class OBBAdapter(TowersAdapter):
    """Ultralytics' OBB and OBB26: ``(predictions (B, 4 + nc + 1, A), raw)``."""

    towers = (BOXES, CLASSES, ANGLES)

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__(head, spec)
        if spec.kind == "OBB":
            self.add_module(ANGLES.joined, TurnedLevels())
            if spec.end2end:
                self.one2one.add_module(ANGLES.joined, TurnedLevels())

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """As of its towers; what turns logits into angles is decode."""
        found = super().roles
        if self.spec.kind == "OBB":
            for joined in (ANGLES.joined, f"one2one.{ANGLES.joined}"):
                found[f"{joined}.logits.**"] = found.pop(f"{joined}.**")
                found[f"{joined}.*"] = ("decode",)
        return found

    def boxes(self, distances: Tensor, raw: dict[str, Any], features: list[Tensor]) -> Tensor:
        """Turned boxes in pixels, (B, 4, A)."""
        return self.decode(distances, raw[ANGLES.key], features)

    def extra(self, raw: dict[str, Any], features: list[Tensor]) -> list[Tensor]:
        """Angles, (B, 1, A)."""
        return [raw[ANGLES.key]]

    def _decode(self, head: Any) -> nn.Module:
        return TurnedBoxDecode(head.stride)


def _spec(head: Any) -> HeadSpec:
    return replace(detect.head_spec(head), angles=int(head.ne))


def _raw(spec: HeadSpec) -> tuple[RawOutput, ...]:
    angle = RawOutput(key=ANGLES.key, title="angles", path=(ANGLES.key,), link=Link.PLAIN, loss="angle")
    return (*detect.raw_outputs(spec), angle)


def _final(spec: HeadSpec) -> tuple[FinalOutput, ...]:
    return detect.final_outputs(spec, Columns(key="angles", size=spec.angles, unit="rad"))


def _described(metadata: Mapping[str, str], classes: int, shapes: Shapes) -> HeadSpec:
    return replace(detect.described(metadata, classes, shapes), angles=1)


OBB = Family(
    task="obb",
    model="ultralytics.nn.tasks.OBBModel",
    heads={"OBB": OBBAdapter, "OBB26": OBBAdapter},
    spec=_spec,
    raw=_raw,
    final=_final,
    metrics=(detect.average_precision(),),
    trainer="ultralytics.models.yolo.obb.OBBTrainer",
    validator="ultralytics.models.yolo.obb.OBBValidator",
    head=detect.head_attributes,
    criterion=detect.criterion(lambda spec: "v8OBBLoss"),
    row=lambda spec: LabelRow(columns=9, words="class x1 y1 x2 y2 x3 y3 x4 y4"),
    metadata=detect.metadata,
    described=_described,
)
