"""Ranges from weighted points: percentile, entropy and mean squared error, each searched for all candidates at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fxqat.quant.affine import scale_and_zero_point

_FUNCTIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "tanh": torch.tanh,
}
# Each round tries factors of 2**-reach to 2**reach on what the last round found.
_REACHES = ((4.0, 17), (1.0, 9), (0.25, 9), (0.06, 9))
# The same for ranges that shrink as a whole, row by row.
_ROW_ROUNDS = ((-3.0, 0.0, 13), (-0.2, 0.2, 9), (-0.04, 0.04, 5))
_THRESHOLDS = 64
_ENTROPY_BINS = 2048


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes that a range is chosen for; fields as in QuantSpec."""

    quant_min: int
    quant_max: int
    symmetric: bool
    power_of_two: bool = False


def by_percentile(
    values: Tensor, weights: Tensor, low: Tensor, high: Tensor, percentile: float
) -> tuple[Tensor, Tensor]:
    """The range that keeps ``percentile`` percent of all values, each end losing half of the rest.

    Where no value is negative (or positive) that end is zero and the other loses all of the rest. Never outside
    ``[low, high]``, which are the observed ends, shape [1].
    """
    order = values.argsort()
    values, share = values[order], weights[order].double().cumsum(0)
    share = share / share[-1]
    lost = (100.0 - percentile) / 100.0
    two_sided = bool(low < 0) and bool(high > 0)
    tail = share.new_tensor([lost / 2 if two_sided else lost])
    last = values.numel() - 1
    least = values[torch.searchsorted(share, tail, right=True).clamp(max=last)]
    most = values[torch.searchsorted(share, 1 - tail).clamp(max=last)]
    return least.clamp(low, high) if bool(low < 0) else low.clone(), most.clamp(low, high) if high > 0 else high.clone()


def by_mse(
    values: Tensor,
    weights: Tensor,
    low: Tensor,
    high: Tensor,
    codes: Codes,
    through: str | None = None,
    clip: str = "both",
) -> tuple[Tensor, Tensor]:
    """The range of least ``sum(weights * (f(fake_quantize(values)) - f(values))**2)``, ``f`` named by ``through``.

    A search by coordinates: both ends shrunk together first (down to 2**-6 of the ends observed, the ends themselves
    included, so the result is never worse than they are), then each in turn by ever finer factors.

    Args:
        values: [P] points.
        weights: [P], how many samples each stands for.
        low: lowest value observed, shape [1].
        high: highest, shape [1].
        codes: what the range is for.
        through: the function after which the error counts, a key of spec.THROUGH, or None.
        clip: "low" searches the lower end alone and leaves the upper one as observed.
    """
    function = _FUNCTIONS[through]
    share = weights / weights.sum()

    def best(lows: Tensor, highs: Tensor) -> tuple[Tensor, Tensor]:
        lows, highs = lows.clamp(low, high), highs.clamp(low, high)
        at = _errors(values, share, lows, highs, codes, function).argmin().view(1)
        return lows[at], highs[at]

    if clip == "low":
        least = low
        for factors in (_powers(-6, 0, 25, low), *(_powers(-reach, reach, count, low) for reach, count in _REACHES)):
            least, _ = best(least * factors, high.expand(len(factors)))
        return least, high.clone()
    if codes.symmetric:
        # the larger end decides the scale, so both are the same distance away wherever values are
        low, high = torch.minimum(low, -high), torch.maximum(high, -low)
    least, most = best(low * _powers(-6, 0, 25, low), high * _powers(-6, 0, 25, low))
    for reach, count in _REACHES:
        factors = _powers(-reach, reach, count, low)
        if codes.symmetric:
            least, most = best(least * factors, most * factors)
            continue
        least, most = best(least * factors, most.expand(count))
        least, most = best(least.expand(count), most * factors)
    return least, most


def by_mse_each(x: Tensor, low: Tensor, high: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    """For each row of ``x`` the range of least ``sum((fake_quantize(row) - row)**2)`` among those that are the observed
    one shrunk as a whole, down to an eighth; the observed one is among them, so the result is never worse.

    Args:
        x: [C, N].
        low: lowest value of each row, shape [C].
        high: highest, shape [C].
        codes: what the ranges are for.

    Returns:
        Ends of shape [C]; where ``x`` has NaN or infinity, as observed.
    """
    found = torch.ones_like(low)
    least = _row_errors(x, low, high, codes)
    for first, last, count in _ROW_ROUNDS:
        for factor in [(found * power).clamp(max=1.0) for power in _powers(first, last, count, low)]:
            errors = _row_errors(x, low * factor, high * factor, codes)
            found, least = torch.where(errors < least, factor, found), torch.minimum(errors, least)
    return low * found, high * found


def by_entropy(values: Tensor, weights: Tensor, low: Tensor, high: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    """The range of least Kullback-Leibler divergence from the clipped to the quantized distribution.

    Migacz 2017, "8-bit Inference with TensorRT": for each threshold T the reference P is the distribution within
    [-T, T] with the outliers added to its ends; Q merges P's bins, without the outliers, to one mass a code and spreads
    each mass evenly over the bins that are not empty. Exact zeros are left out, as TensorRT leaves out its first bin:
    their spike would outweigh all else. Both ends are cut at the same T, no end beyond what was observed.
    """
    spread = values != 0
    values, share = _coarse(values[spread], weights[spread].double(), low, high)
    largest = torch.maximum(-low, high)
    cuts = largest * _powers(-5, 0, _THRESHOLDS, low)
    lows, highs = torch.maximum(low, -cuts), torch.minimum(high, cuts)
    found = [_divergence(values, share, lows[i : i + 1], highs[i : i + 1], codes) for i in range(_THRESHOLDS)]
    at = torch.stack(found).argmin().view(1)
    return lows[at], highs[at]


def _coarse(values: Tensor, weights: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and shares of the bins that are not empty, of 2048 between the ends, in order."""
    width = ((high - low) / _ENTROPY_BINS).clamp(min=torch.finfo(torch.float32).tiny)
    index = ((values - low) / width).to(torch.int64).clamp(0, _ENTROPY_BINS - 1)
    counts = torch.bincount(index, weights=weights, minlength=_ENTROPY_BINS)
    filled = counts.nonzero().flatten()
    return (low + (filled + 0.5) * width).clamp(low, high), counts[filled] / counts.sum()


def _divergence(values: Tensor, share: Tensor, low: Tensor, high: Tensor, codes: Codes) -> Tensor:
    inside = (values >= low) & (values <= high)
    kept, points = share[inside], values[inside]
    if kept.numel() == 0:
        return share.new_tensor(torch.inf)
    scale, zero_point = _numbers(low, high, codes)
    code = ((points / scale).round() + zero_point).clamp(codes.quant_min, codes.quant_max) - codes.quant_min
    code = code.to(torch.int64)
    levels = codes.quant_max - codes.quant_min + 1
    mass = kept.new_zeros(levels).index_add_(0, code, kept)
    filled = torch.bincount(code, minlength=levels)
    quantized = (mass / filled)[code] / kept.sum()
    reference = kept.clone()
    reference[0] += share[values < low].sum()
    reference[-1] += share[values > high].sum()
    return (reference * (reference / quantized).log()).sum()


def _errors(
    values: Tensor, share: Tensor, lows: Tensor, highs: Tensor, codes: Codes, function: Callable[[Tensor], Tensor]
) -> Tensor:
    """Weighted mean squared error of each candidate, shape [K]; scratch memory is K times P float32."""
    scale, zero_point = _numbers(lows, highs, codes)
    scale, zero_point = scale[:, None], zero_point[:, None]
    lowest, highest = codes.quant_min - zero_point, codes.quant_max - zero_point
    rounded = (values / scale).round_().clamp_(lowest, highest).mul_(scale)
    return function(rounded).sub_(function(values)).square_() @ share


def _row_errors(x: Tensor, low: Tensor, high: Tensor, codes: Codes) -> Tensor:
    """Squared error of each row, shape [C]."""
    scale, zero_point = (one[:, None] for one in _numbers(low, high, codes))
    rounded = (x / scale).round_().clamp_(codes.quant_min - zero_point, codes.quant_max - zero_point).mul_(scale)
    return rounded.sub_(x).square_().sum(dim=1)


def _powers(first: float, last: float, count: int, like: Tensor) -> Tensor:
    return torch.exp2(torch.linspace(first, last, count, device=like.device))


def _numbers(low: Tensor, high: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    return scale_and_zero_point(
        low, high, codes.quant_min, codes.quant_max, symmetric=codes.symmetric, power_of_two=codes.power_of_two
    )
