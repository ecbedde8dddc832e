"""Float layers folded into one convolution that computes the same, within rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GEOMETRY = ("in_channels", "stride", "dilation", "groups")


@torch.no_grad()
def parallel(large: nn.Conv2d, bn: nn.BatchNorm2d, small: nn.Conv2d, bn_small: nn.BatchNorm2d) -> nn.Conv2d:
    """``bn(large(x)) + bn_small(small(x))`` as one convolution: the smaller kernel stands in the middle of the larger
    one (RepVGG, arXiv:2101.03697, section 3.3).

    Raises:
        ValueError: the two do not see the same places, or a batch norm keeps no statistics.
    """
    rim = [(a - b) / 2 for a, b in zip(large.kernel_size, small.kernel_size, strict=True)]
    same = ("out_channels", "padding_mode", *_GEOMETRY)
    centred = [a - b for a, b in zip(_padding(large), _padding(small), strict=True)]
    if any(getattr(large, name) != getattr(small, name) for name in same) or centred != rim or min(rim) < 0:
        raise ValueError("two convolutions that see other places are not legal, expected one centred in the other")
    (weight, bias), (inner, more) = _folded(large, bn), _folded(small, bn_small)
    geometry: dict[str, Any] = {name: getattr(large, name) for name in (*_GEOMETRY, "kernel_size", "padding")}
    made = nn.Conv2d(out_channels=large.out_channels, **geometry).to(weight.device)
    down, across = (int(one) for one in rim)
    made.weight.copy_(weight + F.pad(inner, (across, across, down, down)))
    assert made.bias is not None
    made.bias.copy_(bias + more)
    return made.train(large.training)


@torch.no_grad()
def spread(conv: nn.ConvTranspose2d) -> tuple[nn.Conv2d, nn.PixelShuffle]:
    """``conv``, whose steps are as wide as its kernel, as a convolution of one place and a shuffle of its channels.

    With kernel and stride r, ``y[o, r i + a, r j + b] = sum_c x[c, i, j] w[c, o, a, b] + bias[o]``: each place of x
    gives r * r places of y, channel ``o r^2 + a r + b`` of the convolution.

    Raises:
        ValueError: its places overlap, or groups, padding or dilation.
    """
    size = conv.kernel_size[0]
    plain = (conv.groups, *conv.padding, *conv.output_padding, *conv.dilation) == (1, 0, 0, 0, 0, 1, 1)
    if not plain or set(conv.kernel_size) | set(conv.stride) != {size}:
        raise ValueError("a transposed convolution whose places overlap is not legal, expected kernel and stride alike")
    made = nn.Conv2d(conv.in_channels, conv.out_channels * size**2, 1, bias=conv.bias is not None)
    made = made.to(conv.weight.device)
    made.weight.copy_(conv.weight.permute(1, 2, 3, 0).reshape(made.weight.shape))
    if made.bias is not None and conv.bias is not None:
        made.bias.copy_(conv.bias.repeat_interleave(size**2))
    return made.train(conv.training), nn.PixelShuffle(size)


def _padding(conv: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(conv.padding, str):
        raise ValueError(f"padding: {conv.padding!r} is not legal, expected numbers")
    return tuple(conv.padding)


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias with the batch norm's running statistics in them."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("bn: no running statistics, expected track_running_stats=True")
    gamma = bn.weight if bn.affine else torch.ones_like(bn.running_var)
    factor = gamma * torch.rsqrt(bn.running_var + bn.eps)
    shift = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
    bias = shift * factor + (bn.bias if bn.affine else 0.0)
    return conv.weight * factor.view(-1, 1, 1, 1), bias
