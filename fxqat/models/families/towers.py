"""Heads made of towers: stacks of convolutions, one a level, whose outputs are joined over all anchors.

An adapter shares the parameters of the Ultralytics head it stands for and computes the same numbers, bit for bit,
without the data-dependent branches that stop a tracer. It gives ``(final outputs, raw predictions)`` in eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fxqat.models.families.decode import BoxDecode, ExpectedDistance, Levels, Scores
from fxqat.models.families.opaque import Opaque, TrainingOnly
from fxqat.models.family import HeadSpec

MAX_DETECTIONS = 300  # what Ultralytics' heads without NMS give


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One stack of convolutions at every level.

    Attributes:
        path: of the stacks in the head: ``cv2``.
        joined: the site of what joins the levels.
        key: of the joined output in the raw predictions.
        role: of its last convolutions and of the joined output.
    """

    path: str
    joined: str
    key: str
    role: str


BOXES = Tower(path="cv2", joined="box_logits", key="boxes", role="box_out")
CLASSES = Tower(path="cv3", joined="class_logits", key="scores", role="class_out")


class StopGradient(Opaque, TrainingOnly):
    """The input itself; in training no gradient goes back through it."""

    def forward(self, x: Tensor) -> Tensor:
        """``x``, detached in training."""
        return x.detach() if self.training else x


class Selection(Opaque):
    """The detections of a head without NMS: the best of all anchors and classes.

    Args:
        most: detections an image.
    """

    arguments = ("most",)

    def __init__(self, most: int = MAX_DETECTIONS) -> None:
        super().__init__()
        self.most = most

    def forward(self, boxes: Tensor, scores: Tensor, *extra: Tensor) -> Tensor:
        """As Ultralytics' ``postprocess``.

        Args:
            boxes: (B, 4, A), left, top, right, bottom.
            scores: (B, nc, A), probabilities.
            extra: (B, E, A) each, carried along.

        Returns:
            (B, min(most, A), 6 + E): box, score, class index, what was carried along; best first.
        """
        scores, classes = scores.transpose(1, 2), scores.shape[1]
        count = min(self.most, scores.shape[1])
        anchors = scores.amax(-1).topk(count, dim=1)[1]
        best, index = _rows(scores, anchors).flatten(1).topk(count, dim=1)
        anchors = anchors.gather(1, index // classes)
        kept = [_rows(one.transpose(1, 2), anchors) for one in (boxes, *extra)]
        return torch.cat([kept[0], best[..., None], (index % classes)[..., None].float(), *kept[1:]], -1)

    def extra_repr(self) -> str:
        """The word in the graph's text."""
        return str(self.most)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


class Branch(nn.Module):
    """What joins the levels of each tower; the towers themselves stand in the head, under Ultralytics' names."""

    def __init__(self, towers: Sequence[Tower]) -> None:
        super().__init__()
        for tower in towers:
            self.add_module(tower.joined, Levels())


class TowersAdapter(nn.Module):
    """A head of box and class towers, and whatever towers a task adds.

    Attributes:
        towers: of one branch, in the order in which they are computed.
    """

    towers: ClassVar[tuple[Tower, ...]] = (BOXES, CLASSES)

    def __init__(self, head: Any, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        for prefix in self._prefixes():
            for tower in self.towers:
                self.add_module(prefix + tower.path, getattr(head, prefix + tower.path))
        for tower in self.towers:
            self.add_module(tower.joined, Levels())
        if spec.end2end:
            self.one2one, self.detached = Branch(self.towers), StopGradient()
        if spec.bins > 1:
            self.dfl = ExpectedDistance(head.dfl)
        self.decode = self._decode(head)
        self.scores = Scores()
        if spec.nms_free:
            self.selection = Selection(int(head.max_det))

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Globs of sites, relative to the head, and the roles by which a policy may select them whatever its index."""
        found: dict[str, tuple[str, ...]] = {}
        for tower in self.towers:
            out = ("detect", "detect_out", tower.role)
            for prefix, joined in (("", ""), ("one2one_", "one2one.")):
                found[f"{prefix}{tower.path}.*.[01].**"] = ("detect",)
                found[f"{prefix}{tower.path}.*.2"] = out
                found[f"{joined}{tower.joined}.**"] = out
        decoded = {"decode.**": "decode", "scores.**": "decode", "cat": "decode", "selection": "decode"}
        return {**found, "dfl.**": ("dfl",), **{glob: (role,) for glob, role in decoded.items()}}

    def forward(self, features: list[Tensor]) -> tuple[Any, dict[str, Any]]:
        """What the head returns in eval: (final outputs, raw predictions)."""
        raw = self.branch(self, "", features)
        used, seen = raw, features
        if self.spec.end2end:
            alone = [self.detached(x) for x in features]
            other = self.branch(self.one2one, "one2one_", alone)
            used, seen = (other, alone) if self.spec.nms_free else (raw, features)
            raw = {"one2many": raw, "one2one": other}
        return self.predictions(used, seen), raw

    def branch(self, joining: Any, prefix: str, features: list[Tensor]) -> dict[str, Any]:
        """The raw predictions of one branch: its towers at every level, joined."""
        found: dict[str, Any] = {}
        for tower in self.towers:
            stacks = getattr(self, prefix + tower.path)
            maps = [stack(x) for stack, x in zip(stacks, features, strict=True)]
            found[tower.key] = getattr(joining, tower.joined)(maps)
        return {**found, "feats": list(features)}

    def predictions(self, raw: dict[str, Any], features: list[Tensor]) -> Any:
        """The final outputs, (B, 4 + nc + extra, A), or (B, M, 6 + extra) without NMS."""
        distances = self.dfl(raw["boxes"]) if self.spec.bins > 1 else raw["boxes"]
        boxes = self.boxes(distances, raw, features)
        scores = self.scores(raw["scores"])
        extra = self.extra(raw, features)
        if self.spec.nms_free:
            return self.selection(boxes, scores, *extra)
        return torch.cat((boxes, scores, *extra), 1)

    def boxes(self, distances: Tensor, raw: dict[str, Any], features: list[Tensor]) -> Tensor:
        """Boxes in pixels, (B, 4, A)."""
        return self.decode(distances, features)

    def extra(self, raw: dict[str, Any], features: list[Tensor]) -> list[Tensor]:
        """What a task predicts for each anchor beside box and class, (B, E, A) each."""
        return []

    def _decode(self, head: Any) -> nn.Module:
        return BoxDecode(head.stride, corners=self.spec.nms_free)

    def _prefixes(self) -> tuple[str, ...]:
        return ("", "one2one_") if self.spec.end2end else ("",)
