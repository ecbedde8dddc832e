"""Parts of heads with anchors as plain modules, so that every operation of the decode is a node with a site of its own.

They compute what Ultralytics' heads compute, bit for bit, without the branches on shapes that stop a tracer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fxqat.models.families.opaque import Opaque


class AnchorGrid(Opaque):
    """Anchor points or strides of all feature maps; the result depends on shapes alone.

    Args:
        strides: pixels per cell of each level.
        item: 0 for the points, in cells, shape (1, 2, A); 1 for the strides, in pixels, shape (1, A).
    """

    arguments = ("strides", "item")
    reads = False

    def __init__(self, strides: Sequence[float] | Tensor, item: int) -> None:
        super().__init__()
        self.item = item
        self.strides = [float(stride) for stride in strides]

    def forward(self, *features: Tensor) -> Tensor:
        """Grid for feature maps (B, C, H, W) of every level; A is the sum of H * W."""
        if self.item:
            levels = zip(features, self.strides, strict=True)
            return torch.cat([x.new_full((x.shape[2] * x.shape[3],), stride) for x, stride in levels])[None]
        return torch.cat([_centres(x) for x in features]).transpose(0, 1).unsqueeze(0)

    def extra_repr(self) -> str:
        """The word in the graph's text."""
        return "strides" if self.item else "points"


def _centres(x: Tensor) -> Tensor:
    """The middle of each cell of a map (B, C, H, W), (H * W, 2): x, then y, in cells."""
    across, down = (torch.arange(size).type_as(x) + 0.5 for size in (x.shape[3], x.shape[2]))
    ys, xs = torch.meshgrid(down, across, indexing="ij")
    return torch.stack((xs, ys), -1).view(-1, 2)


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
    """Distances (B, 4, A) in cells to boxes (B, 4, A) in pixels.

    Args:
        strides: pixels per cell of each level.
        corners: give left, top, right, bottom instead of centre and size.
    """

    def __init__(self, strides: Tensor, *, corners: bool = False) -> None:
        super().__init__()
        self.points = AnchorGrid(strides, 0)
        self.strides = AnchorGrid(strides, 1)
        self.corners = corners

    def forward(self, distances: Tensor, features: list[Tensor]) -> Tensor:
        """As Ultralytics' dist2bbox, times the strides."""
        left_top, right_bottom = distances.chunk(2, 1)
        points = self.points(*features)
        upper, lower = points - left_top, points + right_bottom
        sides = [upper, lower] if self.corners else [(upper + lower) / 2, lower - upper]
        return torch.cat(sides, 1) * self.strides(*features)


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
