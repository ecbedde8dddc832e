"""Observers: tensors in, a range out; each a torch.ao ObserverBase of bounded state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxqat.quant.histogram import HistogramObserver
from fxqat.quant.range_observer import SYMMETRIC, RangeObserver, keep_float32
from fxqat.quant.range_search import Codes, by_mse_each
from fxqat.quant.spec import OBSERVERS, QuantSpec
from fxqat.quant.torch_ao import ObserverBase, observer_class

__all__ = [
    "FixedRange",
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "PerChannelMSEObserver",
    "PerChannelMinMaxObserver",
    "RangeObserver",
    "keep_float32",
    "make_observer",
]


class FixedRange(RangeObserver):
    """Observes nothing: the range was given."""

    def __init__(self, *, fixed: tuple[float, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low.fill_(fixed[0])
        self.high.fill_(fixed[1])

    def observe(self, x: Tensor) -> None:
        """Ignore ``x``."""


class MinMaxObserver(RangeObserver):
    """The lowest and highest value of all tensors seen."""


class MovingAverageMinMaxObserver(RangeObserver):
    """The exponential moving average of each tensor's lowest and highest value (Jacob et al. 2018, section 3.1).

    ``end = (1 - averaging_constant) * end + averaging_constant * newest``; the first tensor is taken as it is.
    """

    def __init__(self, *, averaging_constant: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.averaging_constant = averaging_constant

    def observe(self, x: Tensor) -> None:
        """Move both ends towards those of ``x``."""
        low, high = self.ends(x)
        first, weight = self.low > self.high, self.averaging_constant
        # not lerp: it would turn an infinity, which the error is to name, into NaN
        self.low, self.high = (
            torch.where(first, new, old * (1 - weight) + new * weight)
            for old, new in ((self.low, low), (self.high, high))
        )


class PerChannelMinMaxObserver(RangeObserver):
    """The lowest and highest value of each index of one axis.

    Args:
        ch_axis: the axis, of length ``channels``.
        channels: its length; None waits for the first tensor (for torch.ao, which does not tell).
    """

    def __init__(
        self,
        *,
        ch_axis: int = 0,
        channels: int | None = None,
        qscheme: Any = torch.per_channel_symmetric,
        **kwargs: Any,
    ) -> None:
        super().__init__(qscheme=qscheme, channels=channels or 1, **kwargs)
        self.ch_axis, self.sized = ch_axis, channels is not None

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each channel of ``x``, shape [C]."""
        low, high = x.movedim(self.ch_axis, 0).flatten(1).aminmax(dim=1)
        return low.float(), high.float()

    def observe(self, x: Tensor) -> None:
        """Widen each channel's range."""
        if not self.sized:
            self.low, self.high = (end.expand(x.shape[self.ch_axis]).clone() for end in (self.low, self.high))
            self.sized = True
        super().observe(x)


class PerChannelMSEObserver(PerChannelMinMaxObserver):
    """The range of least squared error for each index of one axis; of several tensors, the widest of their ranges.

    Meant for weights, which are shown whole: with few codes a channel's largest weight makes all others coarse.
    """

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of each channel's range, shape [C]."""
        low, high = super().ends(x)
        codes = Codes(quant_min=self.quant_min, quant_max=self.quant_max, symmetric=self.qscheme in SYMMETRIC)
        return by_mse_each(x.movedim(self.ch_axis, 0).flatten(1).float(), low, high, codes)


def make_observer(spec: QuantSpec, site: str = "", channels: int | None = None) -> ObserverBase:
    """The observer that ``spec`` asks for.

    Raises:
        Problem: ``spec.observer`` names a torch.ao class that does not exist.
    """
    if spec.observer not in OBSERVERS:
        return _torch_observer(spec, site)
    common: dict[str, Any] = {
        "dtype": spec.dtype,
        "quant_min": spec.quant_min,
        "quant_max": spec.quant_max,
        "power_of_two": spec.power_of_two,
        "site": site,
    }
    if spec.axis is not None:
        scheme = torch.per_channel_symmetric if spec.symmetric else torch.per_channel_affine
        kind = PerChannelMSEObserver if spec.method == "mse" else PerChannelMinMaxObserver
        return kind(ch_axis=spec.axis, channels=channels, qscheme=scheme, **common)
    scheme = torch.per_tensor_symmetric if spec.symmetric else torch.per_tensor_affine
    if spec.observer == "histogram" and spec.fixed is None:
        how: dict[str, Any] = {name: getattr(spec, name) for name in ("method", "percentile", "through", "clip")}
        return HistogramObserver(qscheme=scheme, **how, **common)
    if spec.fixed is not None:
        return FixedRange(fixed=spec.fixed, qscheme=scheme, **common)
    if spec.observer == "moving_average":
        return MovingAverageMinMaxObserver(averaging_constant=spec.averaging_constant, qscheme=scheme, **common)
    return MinMaxObserver(qscheme=scheme, **common)


def _torch_observer(spec: QuantSpec, site: str) -> ObserverBase:
    schemes = (
        (torch.per_tensor_affine, torch.per_tensor_symmetric),
        (torch.per_channel_affine, torch.per_channel_symmetric),
    )
    axis: dict[str, Any] = {} if spec.axis is None else {"ch_axis": spec.axis}
    made: Any = observer_class(spec.observer, site)
    return made(
        dtype=spec.dtype,
        qscheme=schemes[spec.axis is not None][spec.symmetric],
        quant_min=spec.quant_min,
        quant_max=spec.quant_max,
        **axis,
    )
