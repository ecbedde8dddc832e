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
from enum import Enum

import torch
from torch import Tensor

PAIR_MAX = 32767 // 255  # the largest |w_a| + |w_b| that no activation saturates


class Order(Enum):
    """The sequences that a kernel reads a filter (C / groups, Kh, Kw) in; it adds the 1st and 2nd, the 3rd and 4th.

    The last of an odd number has no partner. For an even number of channels both orders give the same pairs.

    Attributes:
        ROWS: one sequence ``(kh, kw, c)``, c fastest: ONNX Runtime, and OpenVINO's groups on AVX2.
        TAPS: a sequence ``c`` for each tap: OpenVINO.
    """

    ROWS = "rows"
    TAPS = "taps"


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


def pair_indices(shape: Sequence[int], orders: Sequence[Order], *, groups: int = 1) -> Tensor:
    """Pairs of a weight's filters, as flat indices of one filter.

    Args:
        shape: (M, C / groups, Kh, Kw), or (M, K) of a linear layer.
        orders: of all kernels that may run it.
        groups: of the convolution; one output for each input channel is a depthwise one, whose kernels widen each
            product to 32 bits, so no two are added in 16.

    Returns:
        int64 (P, 2), in rising order, no pair twice.
    """
    rows, channels, *_ = shape
    if groups > 1 and channels == 1 and rows == groups:
        return torch.empty(0, 2, dtype=torch.int64)
    every = torch.arange(torch.Size(shape[1:]).numel()).view(channels, *shape[2:])
    return torch.cat([_neighbours(_in_order(every, order)) for order in orders]).sort(1).values.unique(dim=0)


def _in_order(every: Tensor, order: Order) -> Tensor:
    """(sequences, length): the indices of one filter, (C, *kernel), as the kernel reads them."""
    return every.movedim(0, -1).reshape(-1, len(every) if order is Order.TAPS else every.numel())


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
    first, second = pairs.to(weight.device).unbind(1)
    return filters[:, first], filters[:, second]


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
