"""Poses: each box has key points."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.models.families import detect
from fxqat.models.families.decode import AnchorGrid
from fxqat.models.families.opaque import Opaque, TrainingOnly
from fxqat.models.families.towers import BOXES, CLASSES, Tower, TowersAdapter
from fxqat.models.family import Columns, Family, FinalOutput, HeadSpec, LabelRow, Link, RawOutput, Shapes, imported

POINTS = Tower(path="cv4", joined="keypoints", key="kpts", role="keypoint_out")


class PointDecode(nn.Module):
    """Key points (B, K * D, A) in cells, relative to their anchors, to pixels; D is 2, or 3 with a visibility.

    Args:
        strides: pixels per cell of each level.
        shape: (K, D).
        doubled: they count in half cells from the cell's corner (YOLOv8 and 11), else in cells from its middle (26).
    """

    def __init__(self, strides: Tensor, shape: tuple[int, int], *, doubled: bool) -> None:
        super().__init__()
        self.points, self.strides = AnchorGrid(strides, 0), AnchorGrid(strides, 1)
        self.shape, self.doubled = shape, doubled

    def forward(self, raw: Tensor, features: list[Tensor]) -> Tensor:
        """As Ultralytics' kpts_decode."""
        each = raw.unflatten(1, self.shape)
        place, visible = each.split((2, self.shape[1] - 2), 2) if self.shape[1] > 2 else (each, None)
        points = self.points(*features)
        moved = place * 2.0 + (points - 0.5) if self.doubled else place + points
        placed = moved * self.strides(*features)
        return (placed if visible is None else torch.cat((placed, visible.sigmoid()), 2)).flatten(1, 2)


class PointFlow(Opaque, TrainingOnly):
    """The input itself; with it rides the normalizing flow by which the loss weighs errors of key points, so that it is
    trained, averaged and kept with the network.

    Attributes:
        flow: Ultralytics' RealNVP (Residual Log-likelihood Estimation, arXiv:2107.11291).
    """

    owns = ("flow",)

    def __init__(self, flow: nn.Module | None = None) -> None:
        super().__init__()
        self.flow: nn.Module = flow or imported("ultralytics.nn.modules.block.RealNVP")()

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return x


class PoseAdapter(TowersAdapter):
    """Ultralytics' Pose: ``(predictions (B, 4 + nc + K * D, A), raw)``."""

    towers = (BOXES, CLASSES, POINTS)

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__(head, spec)
        self.keypoint_decode = PointDecode(head.stride, spec.keypoints, doubled=spec.kind == "Pose")

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """As of its towers, and the decode of key points."""
        return {**super().roles, "keypoint_decode.**": ("decode",)}

    def extra(self, raw: dict[str, Any], features: list[Tensor]) -> list[Tensor]:
        """Key points in pixels, and their visibilities, (B, K * D, A)."""
        return [self.keypoint_decode(raw[POINTS.key], features)]


class Pose26Adapter(PoseAdapter):
    """Ultralytics' Pose26: its towers end in two convolutions, one for key points and one, for the loss, for their
    spread."""

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__(head, spec)
        for prefix in self._prefixes():
            for name in ("cv4_kpts", "cv4_sigma"):
                self.add_module(prefix + name, getattr(head, prefix + name))
        flow = getattr(head, "flow_model", None)  # which Ultralytics' fuse() drops
        self.flow = PointFlow(flow) if flow is not None else nn.Identity()

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """As of its towers, and of what follows them."""
        last = {f"{prefix}cv4_kpts.*": ("detect", "keypoint_out") for prefix in ("", "one2one_")}
        spread = {f"{prefix}cv4_sigma.*": ("detect",) for prefix in ("", "one2one_")}
        return {**super().roles, **last, **spread, "flow": ("detect",)}

    def branch(self, joining: Any, prefix: str, features: list[Tensor]) -> dict[str, Any]:
        """The raw predictions of one branch."""
        found: dict[str, Any] = {}
        for tower in (BOXES, CLASSES):
            stacks = getattr(self, prefix + tower.path)
            found[tower.key] = getattr(joining, tower.joined)([one(x) for one, x in zip(stacks, features, strict=True)])
        poses = [one(x) for one, x in zip(getattr(self, prefix + POINTS.path), features, strict=True)]
        for key, name in ((POINTS.key, "cv4_kpts"), ("kpts_sigma", "cv4_sigma")):
            lasts = zip(getattr(self, prefix + name), poses, strict=True)
            found[key] = getattr(joining, POINTS.joined)([one(x) for one, x in lasts])
        spread = found["kpts_sigma"]
        return {**found, "kpts_sigma": spread if prefix else self.flow(spread), "feats": list(features)}


def _spec(head: Any) -> HeadSpec:
    return replace(detect.head_spec(head), keypoints=tuple(head.kpt_shape))


def _raw(spec: HeadSpec) -> tuple[RawOutput, ...]:
    points = RawOutput(key=POINTS.key, title="key points", path=(POINTS.key,), link=Link.PLAIN, loss="kpts")
    return (*detect.raw_outputs(spec), points)


def _final(spec: HeadSpec) -> tuple[FinalOutput, ...]:
    count, numbers = spec.keypoints
    axes = "xy" if numbers == 2 else "xy-"  # across, down, and a visibility
    return detect.final_outputs(spec, Columns(key="keypoints", size=count * numbers, unit="in key points", axes=axes))


def _attributes(spec: HeadSpec, stride: Tensor, gm: nn.Module) -> SimpleNamespace:
    flow = next((one.flow for one in gm.modules() if isinstance(one, PointFlow)), None)
    shared = vars(detect.head_attributes(spec, stride, gm))
    return SimpleNamespace(**shared, **_told_by_data(spec), flow_model=flow)


def _told_by_data(spec: HeadSpec) -> dict[str, Any]:
    return {"kpt_shape": list(spec.keypoints)}


def _row(spec: HeadSpec) -> LabelRow:
    count, numbers = spec.keypoints
    words = f"class x y w h, and {count} key points of {numbers} numbers"
    return LabelRow(columns=5 + count * numbers, exact=True, words=words)


def _metadata(spec: HeadSpec) -> dict[str, Any]:
    return {**detect.metadata(spec), **_told_by_data(spec)}


def _described(metadata: Mapping[str, str], classes: int, shapes: Shapes) -> HeadSpec:
    points = ast.literal_eval(metadata.get("kpt_shape", "[0, 0]"))
    return replace(detect.described(metadata, classes, shapes), keypoints=tuple(points))


POSE = Family(
    task="pose",
    model="ultralytics.nn.tasks.PoseModel",
    heads={"Pose": PoseAdapter, "Pose26": Pose26Adapter},
    spec=_spec,
    raw=_raw,
    final=_final,
    metrics=(detect.average_precision("P", "pose", "pose", "tp_p", "poses"), detect.average_precision(of="box")),
    trainer="ultralytics.models.yolo.pose.PoseTrainer",
    validator="ultralytics.models.yolo.pose.PoseValidator",
    head=_attributes,
    criterion=detect.criterion(lambda spec: "PoseLoss26" if spec.kind == "Pose26" else "v8PoseLoss"),
    row=_row,
    data_keys=_told_by_data,
    metadata=_metadata,
    described=_described,
)
