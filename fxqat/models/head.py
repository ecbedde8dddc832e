"""Detection heads as plain modules, so that every operation of the decode becomes a node with a site of its own.

An adapter shares the parameters of the Ultralytics head it stands for and computes the same numbers, bit for bit,
without the data-dependent branches that stop a tracer. ``ADAPTERS`` maps head classes to adapters: a new task is a new
entry, no pass changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fxqat.errors import Problem
from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)

from ultralytics.nn.modules.head import Detect  # isort: skip
from ultralytics.utils.tal import make_anchors  # isort: skip


class AnchorGrid(nn.Module):
    """Anchor points or strides of all feature maps, a leaf of the trace: its result depends on shapes alone.

    Args:
        strides: pixels per cell of each level.
        item: 0 for the points, in cells, shape (1, 2, A); 1 for the strides, in pixels, shape (1, A).
    """

    def __init__(self, strides: Tensor, item: int) -> None:
        super().__init__()
        self.item = item
        self.level_strides = [float(stride) for stride in strides]

    def forward(self, *features: Tensor) -> Tensor:
        """Grid for feature maps (B, C, H, W) of every level; A is the sum of H * W."""
        grid: Tensor = make_anchors(list(features), self.level_strides, 0.5)[self.item].transpose(0, 1)
        return grid.unsqueeze(0) if self.item == 0 else grid

    def extra_repr(self) -> str:
        """The word in the graph's text."""
        return "strides" if self.item else "points"


class ExpectedDistance(nn.Module):
    """Distribution focal loss, decoded: (B, 4 * bins, A) logits to (B, 4, A) expected distances in cells.

    ``d = sum_i i * softmax(z)_i`` (Generalized Focal Loss, arXiv 2006.04388, eq. 5).
    """

    def __init__(self, dfl: nn.Module) -> None:
        super().__init__()
        self.bins = int(dfl.c1)  # type: ignore[arg-type]
        self.conv: nn.Conv2d = dfl.conv  # type: ignore[assignment]

    def forward(self, logits: Tensor) -> Tensor:
        """As Ultralytics' DFL, operation by operation."""
        sides = logits.unflatten(1, (4, self.bins)).transpose(2, 1)
        return self.conv(sides.softmax(1)).squeeze(1)


class BoxDecode(nn.Module):
    """Distances (B, 4, A) in cells to centre-size boxes (B, 4, A) in pixels."""

    def __init__(self, strides: Tensor) -> None:
        super().__init__()
        self.points = AnchorGrid(strides, 0)
        self.strides = AnchorGrid(strides, 1)

    def forward(self, distances: Tensor, features: list[Tensor]) -> Tensor:
        """As Ultralytics' dist2bbox with xywh=True, times the strides."""
        left_top, right_bottom = distances.chunk(2, 1)
        points = self.points(*features)
        upper, lower = points - left_top, points + right_bottom
        boxes = torch.cat([(upper + lower) / 2, lower - upper], 1)
        return boxes * self.strides(*features)


class Levels(nn.Module):
    """Flatten each level's map (B, C, H, W) to (B, C, H * W) and join the levels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(B, C, A)."""
        return torch.cat([one.flatten(2) for one in maps], -1)


class Scores(nn.Module):
    """Class logits to probabilities; apart from the boxes, so that no scale can ever serve both."""

    def forward(self, logits: Tensor) -> Tensor:
        """(B, nc, A) to (B, nc, A)."""
        return logits.sigmoid()


class DetectAdapter(nn.Module):
    """Ultralytics' Detect as a graph: sites ``cv2``, ``cv3``, ``box_logits``, ``class_logits``, ``dfl``, ``decode``,
    ``scores``."""

    # Globs of sites, relative to the head, and the roles by which a policy may select them whatever the head's index.
    roles: ClassVar[dict[str, tuple[str, ...]]] = {
        "cv[23].*.[01].**": ("detect",),
        "cv[23].*.2": ("detect", "detect_out"),
        "box_logits.**": ("detect", "detect_out"),
        "class_logits.**": ("detect", "detect_out"),
        "dfl.**": ("dfl",),
        "decode.**": ("decode",),
        "scores.**": ("decode",),
        "cat": ("decode",),
    }

    def __init__(self, head: Detect) -> None:
        super().__init__()
        self.cv2, self.cv3 = head.cv2, head.cv3
        self.box_logits, self.class_logits = Levels(), Levels()
        self.dfl = ExpectedDistance(head.dfl)
        self.decode = BoxDecode(head.stride)
        self.scores = Scores()

    def forward(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """What the head returns in eval: ((B, 4 + nc, A) boxes in pixels and probabilities, the raw predictions)."""
        boxes = self.box_logits([branch(x) for branch, x in zip(self.cv2, features, strict=True)])
        logits = self.class_logits([branch(x) for branch, x in zip(self.cv3, features, strict=True)])
        decoded = self.decode(self.dfl(boxes), features)
        joined = torch.cat((decoded, self.scores(logits)), 1)
        return joined, {"boxes": boxes, "scores": logits, "feats": list(features)}


ADAPTERS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {Detect: DetectAdapter}


def adapt(head: nn.Module, where: str) -> nn.Module:
    """The adapter of ``head``.

    Raises:
        Problem: a head class without an adapter, an end-to-end head, or one without DFL.
    """
    known = ", ".join(kind.__name__ for kind in ADAPTERS)
    if type(head) not in ADAPTERS:
        raise Problem(
            where, f"its head is {type(head).__name__}", expected=f"one of: {known}", remedy="use a detection model"
        )
    if getattr(head, "one2one_cv2", None) is not None:
        raise Problem(where, "its head is end-to-end (one2one branches)", expected="a YOLOv8 detection head")
    if int(getattr(head, "reg_max", 16)) < 2:
        raise Problem(where, "its head has no distribution focal loss", expected="reg_max of 2 or more")
    return ADAPTERS[type(head)](head)
