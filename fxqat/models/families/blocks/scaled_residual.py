"""A residual that is scaled for each channel before it is added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ScaledResidualAdapter(nn.Module):
    """Ultralytics' A2C2f of YOLO12 l and x: what the block computes is scaled by a learned ``gamma`` for each channel,
    and added to its input.

    The scale is a convolution of one weight a channel, which integer kernels have, as they have no product by a
    constant of the channel; it is trained as ``gamma`` is.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.cv1, self.cv2, self.m = block.cv1, block.cv2, block.m
        channels = len(block.gamma)
        self.gamma = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.gamma.weight = nn.Parameter(block.gamma.detach().view(-1, 1, 1, 1), block.gamma.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y = [self.cv1(x)]
        y.extend(one(y[-1]) for one in self.m)
        return x + self.gamma(self.cv2(torch.cat(y, 1)))


def area_block(block: Any) -> nn.Module:
    """An A2C2f, which the tracer follows where its result is not scaled."""
    return block if block.gamma is None else ScaledResidualAdapter(block)
