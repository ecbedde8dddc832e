"""Pairs of weights whose products a kernel adds in 16 bits.

x86 without VNNI multiplies uint8 activations by int8 weights with ``vpmaddubsw``, which adds two neighbouring products
and saturates at 16 bits. Activations reach 255, so ``255 (|w_a| + |w_b|) <= 32767`` must hold for two weights of one
sign: ``|w_a| + |w_b| <= 128``. Two of opposite signs stay below ``255 * 128``.

Which weights are neighbours is known from the kernels' sources and from trials of every pair (ONNX Runtime 1.32 and
OpenVINO 2026.4, with AVX2 and with AVX-512); tests/processors repeats them at the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fxqat.quant.pair_order import Order
from fxqat.quant.pixel_groups import LANES, group_size, grouped_kernel

PAIR_MAX = 32767 // 255  # the largest |w_a| + |w_b| that no activation saturates


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """The worst pair of a weight, ``|total| > PAIR_MAX``.

    Attributes:
        row: output channel.
        a: index of the first weight in its filter, (c, kh, kw) or (input feature,).
        b: index of the second.
        total: the sum of both codes.
    """

    row: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    total: int


def pair_indices(
    shape: Sequence[int], orders: Sequence[Order], *, groups: int = 1, stride: int = 1, padding: int = 0
) -> Tensor:
    """Pairs of a weight's filters, as flat indices of one filter.

    Args:
        shape: (M, C / groups, Kh, Kw), or (M, K) of a linear layer.
        orders: of all kernels that may run it.
        groups: of the convolution; one output for each input channel is a depthwise one, whose kernels widen each
            product to 32 bits, so no two are added in 16.
        stride: along a row of pixels, for PIXELS.
        padding: before a row of pixels, for PIXELS.

    Returns:
        int64 (P, 2), in rising order, no pair twice.
    """
    rows, channels, *_ = shape
    if not orders or (groups > 1 and channels == 1 and rows == groups):
        return torch.empty(0, 2, dtype=torch.int64)
    every = torch.arange(torch.Size(shape[1:]).numel()).view(channels, *shape[2:])
    found = [torch.empty(0, 2, dtype=torch.int64)]
    found += [_neighbours(_in_order(every, order)) for order in orders if order is not Order.PIXELS]
    if Order.PIXELS in orders and groups == 1 and len(shape) == 4 and channels % LANES:
        found.append(_pixel_neighbours(every, stride, padding))
    return torch.cat(found).sort(1).values.unique(dim=0)


def _in_order(every: Tensor, order: Order) -> Tensor:
    """(sequences, length): the indices of one filter, (C, *kernel), as the kernel reads them."""
    return every.movedim(0, -1).reshape(-1, len(every) if order is Order.TAPS else every.numel())


def _pixel_neighbours(every: Tensor, stride: int, padding: int) -> Tensor:
    """Neighbours in the filters over groups of pixels that one filter (C, Kh, Kw) becomes."""
    group = group_size(len(every), stride)
    kernel, _, _ = grouped_kernel(every[None].numpy() + 1, group, stride, padding)  # 0 where it has no weight
    sequences = torch.from_numpy(kernel).movedim(1, -1).reshape(len(kernel), -1)
    pairs = torch.cat([_neighbours(one[None]) for one in sequences])
    return pairs[(pairs > 0).all(1)] - 1


def _neighbours(sequences: Tensor) -> Tensor:
    even = sequences.shape[1] // 2 * 2
    return sequences[:, :even].reshape(-1, 2)


def partners(weight: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Both weights of every pair, each (M, P).

    Args:
        weight: (M, ...), codes or floats.
        pairs: of :func:`pair_indices`.
    """
    filters = weight.flatten(1)
    # a quarter of the time of filters[:, first]
    first, second = (filters.index_select(1, index) for index in pairs.to(weight.device).unbind(1))
    return first, second


def pair_sums(weight: Tensor, pairs: Tensor) -> Tensor:
    """``|w_a| + |w_b|`` of pairs of one sign, 0 of others, (M, P); codes as int32, floats in their own dtype."""
    a, b = partners(weight if weight.is_floating_point() else weight.int(), pairs)
    return torch.where(a.sign() == b.sign(), (a + b).abs(), 0)


def largest_sums(weight: Tensor, pairs: Tensor) -> Tensor:
    """The largest of :func:`pair_sums` of each output channel, (M,); 0 where there are no pairs."""
    sums = pair_sums(weight, pairs)
    return sums.amax(1) if len(pairs) else sums.new_zeros(len(weight))


def overflow(codes: Tensor, pairs: Tensor) -> Overflow | None:
    """The pair with the largest sum, where it is over PAIR_MAX.

    Args:
        codes: integers (M, ...), of any dtype.
        pairs: of :func:`pair_indices`.
    """
    largest = largest_sums(codes, pairs)
    row = int(largest.argmax())
    if largest[row] <= PAIR_MAX:
        return None
    column = int(pair_sums(codes[row : row + 1], pairs).argmax())
    a, b = (tuple(int(axis) for axis in torch.unravel_index(one, codes.shape[1:])) for one in pairs[column])
    return Overflow(row=row, a=a, b=b, total=int(codes[(row, *a)]) + int(codes[(row, *b)]))


def pair_scales(weight: Tensor, pairs: Tensor) -> Tensor:
    """The least scale at which each pair's codes keep PAIR_MAX, float32 (M, P); 0 for two weights of opposite signs.

    For magnitudes a and b, ``round(a / s) + round(b / s) <= B`` holds where some whole number k has ``a / s < k + 1/2``
    and ``b / s < B - k + 1/2``, so the least s is ``min_k max(a / (k + 1/2), b / (B - k + 1/2))``. The first term falls
    with k and the second rises; they meet at ``k = (B + 1) a / (a + b) - 1/2``, so the best whole number is the one
    below or above. The result is 1 + 2**-20 times that: ``B + 1/2`` divided by it is off the tie by thousands of times
    the spacing of float32 there.

    Args:
        weight: float32 (M, ...).
        pairs: of :func:`pair_indices`.
    """
    a, b = partners(weight, pairs)
    one_sign = a.sign().mul_(b.sign()).clamp_(min=0)  # 1 or 0, to multiply by: torch.where takes ten times as long
    a, b = a.abs_(), b.abs_()
    meet = a.div((a + b).clamp_(min=torch.finfo(a.dtype).tiny)).mul_(PAIR_MAX + 1).sub_(0.5)
    low, high = (_scale_at(k.clamp_(0, PAIR_MAX), a, b) for k in (meet.floor(), meet.ceil_()))
    return torch.minimum(low, high, out=low).mul_(one_sign).mul_(1 + 2.0**-20)


def _scale_at(k: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``max(a / (k + 1/2), b / (B - k + 1/2))``; the memory of ``k``, whole numbers, is used up."""
    first = a / k.add_(0.5)
    rest = k.neg_().add_(PAIR_MAX + 1)
    return torch.maximum(first, torch.div(b, rest, out=rest), out=first)


def least_scale(weight: Tensor, pairs: Tensor) -> Tensor:
    """The largest of :func:`pair_scales` of each output channel, (M,); 0 where there are no pairs."""
    return pair_scales(weight, pairs).amax(1) if len(pairs) else weight.new_zeros(len(weight))


def bounding_weights(weight: Tensor, pairs: Tensor, scale: Tensor) -> Tensor:
    """Which weights decide the scale in use, since a pair of them allows no smaller one: bool, shape of ``weight``.

    Args:
        weight: float32 (M, ...).
        pairs: of :func:`pair_indices`.
        scale: float32 (M,) or (1,).
    """
    found = torch.zeros_like(weight.flatten(1), dtype=torch.int32)
    at = (pair_scales(weight, pairs) >= scale.view(-1, 1)).int()
    for member in pairs.unbind(1):
        found.index_add_(1, member, at)
    return (found > 0).view_as(weight)


def lower_overflowing(codes: Tensor, exact: Tensor, pairs: Tensor, kept: Tensor) -> Tensor:
    """Codes whose pairs keep PAIR_MAX: of a pair above it, the code rounded away from zero more gives up a step.

    Args:
        codes: float32 (M, ...), whole numbers, 0 the zero point.
        exact: ``weight / scale``, same shape.
        pairs: of :func:`pair_indices`.
        kept: bool, same shape: codes that stay; no two of them exceed the bound.
    """
    found = codes.flatten(1).clone()
    while bool((over := pair_sums(found, pairs) > PAIR_MAX).any()):
        raised = ((found - exact.flatten(1)) * found.sign()).masked_fill(kept.flatten(1), -torch.inf)
        first, second = partners(raised, pairs)
        victims = torch.zeros_like(found, dtype=torch.int32)
        victims.index_add_(1, pairs[:, 0], (over & (first >= second)).int())
        victims.index_add_(1, pairs[:, 1], (over & (first < second)).int())
        found -= found.sign() * (victims > 0)
    return found.view_as(codes)
