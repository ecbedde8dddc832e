"""Anchor points and strides of feature maps, apart from Ultralytics, which a saved graph does not need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGrid(nn.Module):
    """Anchor points or strides of all feature maps, a leaf of the trace: its result depends on shapes alone.

    Args:
        strides: pixels per cell of each level.
        item: 0 for the points, in cells, shape (1, 2, A); 1 for the strides, in pixels, shape (1, A).
    """

    def __init__(self, strides: Sequence[float] | Tensor, item: int) -> None:
        super().__init__()
        self.item = item
        self.level_strides = [float(stride) for stride in strides]

    def forward(self, *features: Tensor) -> Tensor:
        """Grid for feature maps (B, C, H, W) of every level; A is the sum of H * W."""
        if self.item:
            levels = zip(features, self.level_strides, strict=True)
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
