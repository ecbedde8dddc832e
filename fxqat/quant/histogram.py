"""A histogram of bounded size over all tensors seen, and the range that a calibration method makes of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxqat.quant import range_search
from fxqat.quant.range_observer import SYMMETRIC, RangeObserver

BINS = 16384
SAMPLES = 4096
# the number of bins a unit of value must be a float32
_SMALLEST_LIMIT = 2.0**-100


class HistogramObserver(RangeObserver):
    """Exact ends, and a histogram of evenly spaced samples of every tensor.

    The bins split ``[-limit, limit)`` evenly, with ``limit`` a power of two. When a value lies outside, ``limit`` is
    doubled until it does not and each pair of bins becomes one, which is exact: the result is the histogram that the
    wider limit would have given from the start. Samples and not all values are counted, since 4096 values of each image
    place a quantile as well as a million do, and cost a hundredth of it.

    Args:
        method: "standard" (the ends), "percentile", "entropy" or "mse", see fxqat.quant.range_search.
        percentile: percent of all values kept by "percentile".
        through: name of the function after which "mse" measures the error, or None.
        clip: which ends "mse" may cut, "both" or "low".
        bins: how many bins, even.
        samples: how many values of each image (index of dimension 0) are counted.
        kwargs: see RangeObserver.
    """

    counts: Tensor

    def __init__(
        self,
        *,
        method: str = "mse",
        percentile: float = 99.999,
        through: str | None = None,
        clip: str = "both",
        bins: int = BINS,
        samples: int = SAMPLES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.method, self.percentile, self.through, self.clip = method, percentile, through, clip
        self.bins, self.samples = bins, samples
        self.limit, self.zeros, self.tensors = 0.0, 0, 0
        # left out of checkpoints: only calibration needs it, and 200 of them would be 26 MB
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.int64, device=self.low.device), persistent=False)

    def observe(self, x: Tensor) -> None:
        """Count samples of ``x``; values that are not finite only show in the ends, where they are refused."""
        low, high = self.ends(x)
        torch.minimum(self.low, low, out=self.low)
        torch.maximum(self.high, high, out=self.high)
        largest = float(torch.maximum(-low, high))
        if self.method == "standard" or not math.isfinite(largest):
            return
        self._widen(largest)
        self._count(_spread(x, self.samples * (x.shape[0] if x.dim() > 1 else 1), self.tensors).float())
        self.tensors += 1

    def reset(self) -> None:
        """Forget everything seen."""
        super().reset()
        self.counts.zero_()
        self.limit, self.zeros, self.tensors = 0.0, 0, 0

    def range(self) -> tuple[Tensor, Tensor]:
        """The range that the method chooses, within the ends and zero; float32 tensors of shape [1].

        Raises:
            Problem: nothing was seen, or a NaN or infinity was.
        """
        low, high = self.checked()
        if self.method == "standard" or self.limit == 0.0:
            return low.clone(), high.clone()
        values, weights = self.points()
        values = values.clamp(low, high)
        if self.method == "percentile":
            return range_search.by_percentile(values, weights, low, high, self.percentile)
        low, high = low.clamp(max=0), high.clamp(min=0)
        codes = range_search.Codes(
            quant_min=self.quant_min,
            quant_max=self.quant_max,
            symmetric=self.qscheme in SYMMETRIC,
            power_of_two=self.power_of_two,
        )
        if self.method == "entropy":
            return range_search.by_entropy(values, weights, low, high, codes)
        return range_search.by_mse(values, weights, low, high, codes, self.through, self.clip)

    def points(self) -> tuple[Tensor, Tensor]:
        """The histogram as values (centres of the bins that hold something, and 0 for exact zeros) and weights."""
        filled = self.counts.nonzero().flatten()
        width = 2 * self.limit / self.bins
        centres = (filled - self.bins // 2 + 0.5).float() * width
        weights = self.counts[filled].float()
        if not self.zeros:
            return centres, weights
        return torch.cat([centres, centres.new_zeros(1)]), torch.cat([weights, weights.new_tensor([self.zeros])])

    def _widen(self, largest: float) -> None:
        if largest < self.limit or largest == 0.0:
            return
        limit = max(2.0 ** math.frexp(largest)[1], _SMALLEST_LIMIT)
        if self.limit:
            self.counts.copy_(_merged(self.counts, min(round(limit / self.limit), self.bins)))
        self.limit = limit

    def _count(self, sample: Tensor) -> None:
        filled = sample[sample != 0]
        self.zeros += sample.numel() - filled.numel()
        if filled.numel():
            # a product with a power of two is exact, so no value is counted in its neighbour's bin
            index = filled.mul_(self.bins / (2 * self.limit)).floor_().to(torch.int64).add_(self.bins // 2)
            self.counts += torch.bincount(index, minlength=self.bins)


def _spread(x: Tensor, count: int, turn: int) -> Tensor:
    """About ``count`` values at even distances, from elsewhere each ``turn``; the distance shares no factor with the
    size of the tensor, so that every row, column and channel is met.
    """
    flat = x.flatten()
    step = max(1, flat.numel() // count)
    while step > 1 and math.gcd(step, flat.numel()) > 1:
        step += 1
    return flat[turn % step :: step]


def _merged(counts: Tensor, times: int) -> Tensor:
    """The counts for a limit ``times`` (a power of two) as large: the old bins, summed in groups, in the middle."""
    bins = counts.numel()
    half = bins // 2
    index = torch.arange(bins, device=counts.device)
    index = torch.div(index - half, times, rounding_mode="floor") + half
    return torch.zeros_like(counts).index_add_(0, index, counts)
