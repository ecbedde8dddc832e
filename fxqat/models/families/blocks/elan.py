"""Blocks of YOLOv9: poolings that Ultralytics calls as functions, as the layers that they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fxqat.models.families.opaque import Opaque


class AConvAdapter(nn.Module):
    """Ultralytics' AConv: an average over 2 x 2 places, then a convolution of stride 2."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.pool, self.cv1 = nn.AvgPool2d(2, 1), block.cv1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2)."""
        return self.cv1(self.pool(x))


class ADownAdapter(nn.Module):
    """Ultralytics' ADown: as AConv for half of the channels, the largest of 3 x 3 places for the others."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.pool, self.largest = nn.AvgPool2d(2, 1), nn.MaxPool2d(3, 2, 1)
        self.cv1, self.cv2 = block.cv1, block.cv2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2)."""
        first, second = self.pool(x).chunk(2, 1)
        return torch.cat((self.cv1(first), self.cv2(self.largest(second))), 1)


class EnlargedLike(Opaque):
    """A map enlarged to the size of another, each place by its nearest."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, C, H, W) with H and W of ``like``."""
        return F.interpolate(x, size=like.shape[2:], mode="nearest")


class CBFuseAdapter(nn.Module):
    """Ultralytics' CBFuse: the sum of maps of several sizes, enlarged to that of the last."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.idx: Sequence[int] = block.idx
        self.enlarge = EnlargedLike()

    def forward(self, maps: Any) -> Tensor:
        """Tuples of maps, of which one each is taken, and a last map, to one map like that."""
        *others, last = maps
        found = [self.enlarge(one[index], last) for one, index in zip(others, self.idx, strict=False)]
        return torch.sum(torch.stack([*found, last]), dim=0)
