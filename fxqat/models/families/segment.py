"""Instance segmentation: each box has coefficients, with which prototypes of the whole image are added to its mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fxqat.models.families import detect
from fxqat.models.families.towers import BOXES, CLASSES, Tower, TowersAdapter
from fxqat.models.family import Columns, Family, FinalOutput, HeadSpec, LabelRow, Link, RawOutput, Shapes

MASKS = Tower(path="cv4", joined="mask_coefficients", key="mask_coefficient", role="mask_out")
SEMANTIC = "semantic"  # class maps of YOLO26, which only its loss reads


class SegmentAdapter(TowersAdapter):
    """Ultralytics' Segment and Segment26: ``((predictions (B, 4 + nc + nm, A), prototypes (B, nm, H, W)), raw)``."""

    towers = (BOXES, CLASSES, MASKS)

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__(head, spec)
        self.proto = head.proto
        self.all_levels = spec.kind == "Segment26"
        if self.all_levels:
            sizes = range(1, len(head.proto.feat_refine) + 1)
            self.enlarge = nn.ModuleList(nn.Upsample(scale_factor=float(2**size), mode="nearest") for size in sizes)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """As of its towers; the last convolution of the prototypes gives a mask too."""
        return {**super().roles, "proto.**": ("mask",), "proto.cv3.**": ("mask", "mask_out")}

    def forward(self, features: list[Tensor]) -> tuple[Any, dict[str, Any]]:
        """The final outputs and the raw predictions, each branch with its prototypes."""
        predictions, raw = super().forward(features)
        prototypes, semantic = self.prototypes(features)
        found = {"proto": prototypes, **({SEMANTIC: semantic} if semantic is not None else {})}
        if not self.spec.end2end:
            return (predictions, prototypes), {**raw, **found}
        apart = {key: self.detached(one) for key, one in found.items()}
        branches = {"one2many": {**raw["one2many"], **found}, "one2one": {**raw["one2one"], **apart}}
        return (predictions, prototypes), branches

    def prototypes(self, features: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Prototypes (B, nm, H, W), and class maps (B, nc, H / 2, W / 2) where the head has them."""
        if not self.all_levels:
            return self.proto(features[0]), None
        joined = self._joined(features)
        fine = self.proto.cv1(self.proto.feat_fuse(joined))
        found = self.proto.cv3(self.proto.cv2(self.proto.upsample(fine)))
        semantic: nn.Module | None = self.proto.semseg
        return found, None if semantic is None else semantic(joined)

    def extra(self, raw: dict[str, Any], features: list[Tensor]) -> list[Tensor]:
        """Coefficients, (B, nm, A)."""
        return [raw[MASKS.key]]

    def _joined(self, features: list[Tensor]) -> Tensor:
        """As Proto26: coarser levels, refined and enlarged, on the finest one."""
        joined = features[0]
        for enlarge, refine, x in zip(self.enlarge, self.proto.feat_refine, features[1:], strict=True):
            joined = joined + enlarge(refine(x))
        return joined


def _spec(head: Any) -> HeadSpec:
    return replace(detect.head_spec(head), masks=int(head.nm))


def _raw(spec: HeadSpec) -> tuple[RawOutput, ...]:
    return (
        *detect.raw_outputs(spec),
        RawOutput(key=MASKS.key, title="mask coefficients", path=(MASKS.key,), link=Link.PLAIN, loss="mask"),
        RawOutput(key="proto", title="prototypes", path=("proto",), link=Link.PLAIN, anchored=False, loss="proto"),
    )


def _final(spec: HeadSpec) -> tuple[FinalOutput, ...]:
    coefficients = Columns(key="masks", size=spec.masks, unit="in mask coefficients")
    prototypes = Columns(key="prototypes", size=spec.masks, unit="in prototypes")
    return (*detect.final_outputs(spec, coefficients), FinalOutput(name="output1", columns=(prototypes,), rank=4))


def _for_loss(raw: Any) -> Any:
    """Class maps beside the prototypes, as Proto26 gives them in training."""
    if "one2many" in raw:
        return {branch: _for_loss(one) for branch, one in raw.items()}
    if SEMANTIC not in raw:
        return raw
    return {**raw, "proto": (raw["proto"], raw[SEMANTIC])}


def _described(metadata: Mapping[str, str], classes: int, shapes: Shapes) -> HeadSpec:
    masks = shapes[1][1] if len(shapes) > 1 and len(shapes[1]) == 4 else 0
    return replace(detect.described(metadata, classes, shapes), masks=masks if isinstance(masks, int) else 0)


SEGMENT = Family(
    task="segment",
    model="ultralytics.nn.tasks.SegmentationModel",
    heads={"Segment": SegmentAdapter, "Segment26": SegmentAdapter},
    spec=_spec,
    raw=_raw,
    final=_final,
    metrics=(detect.average_precision("M", "mask", "seg", "tp_m", "masks"), detect.average_precision(of="box")),
    trainer="ultralytics.models.yolo.segment.SegmentationTrainer",
    validator="ultralytics.models.yolo.segment.SegmentationValidator",
    head=detect.head_attributes,
    criterion=detect.criterion(lambda spec: "SegmentLoss26" if spec.kind == "Segment26" else "v8SegmentationLoss"),
    row=lambda spec: LabelRow(columns=7, words="class x1 y1 x2 y2 x3 y3 ..."),
    for_loss=_for_loss,
    metadata=detect.metadata,
    described=_described,
)
