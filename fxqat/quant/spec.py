"""How a tensor is quantized: QuantSpec (configuration), QConfig (of one layer), QParams (scale, zero point)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where a dtype is asked for: policies and targets need no torch
    import torch

OBSERVERS = ("minmax", "moving_average", "histogram")
METHODS = ("standard", "percentile", "entropy", "mse")
SCALES = ("fixed", "lsq", "lsq+")
GRADIENTS = ("ste", "dsq")
CLIPS = ("both", "low")
THROUGH = ("silu", "sigmoid", "relu", "hardswish", "gelu", "tanh")
TORCH_OBSERVERS = "torch.ao.quantization."


def nearest(value: str, legal: Iterable[str]) -> str | None:
    """The legal word that ``value`` was probably meant to be, or None when none is close."""
    close = difflib.get_close_matches(str(value), list(legal), n=1, cutoff=0.5)
    return close[0] if close else None


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """The quantization configuration of one tensor, checked when made.

    Attributes:
        bits: 2 to 16; more than 8 only per tensor (activations).
        signed: int8 or int16 if true, else uint8 or uint16.
        symmetric: the zero point is the middle of the integer range (0 if signed).
        narrow: the lowest integer is not used; int8 becomes -127..127.
        axis: the dimension with one scale for each index (per channel); None for one scale (per tensor).
        power_of_two: scales are powers of two, rounded up so that the range stays covered.
        observer: "minmax", "moving_average", "histogram" or the dotted name of a torch.ao observer class.
        method: how a histogram becomes a range; "standard" is the plain minimum and maximum. With ``axis`` set "mse"
            shrinks each channel's minimum and maximum to the least squared error.
        percentile: percent of all values kept by method "percentile".
        averaging_constant: weight of the newest tensor for observer "moving_average".
        through: the range is chosen by the error after this function (observer histogram, method mse).
        clip: which ends method "mse" may clip: "both", or "low", which keeps the largest value; use it where objects
            are small and rare (observer histogram, method mse).
        fixed: the range, if it is given and not observed.
        scale: "fixed" after calibration; "lsq" learns it (Esser et al. 2020, arXiv:1902.08153); "lsq+" learns the
            offset too (Bhalgat et al. 2020, arXiv:2004.09576).
        gradient: "ste", straight through with clipping; "dsq", the derivative of differentiable soft quantization
            (Gong et al. 2019, arXiv:1908.05033).

    Raises:
        ValueError: one line that names the field, its value and what is legal.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    narrow: bool = False
    axis: int | None = None
    power_of_two: bool = False
    observer: str = "minmax"
    method: str = "standard"
    percentile: float = 99.999
    averaging_constant: float = 0.01
    through: str | None = None
    clip: str = "both"
    fixed: tuple[float, float] | None = None
    scale: str = "fixed"
    gradient: str = "ste"

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_words(self)
        _check_together(self)

    @property
    def quant_min(self) -> int:
        """The lowest code."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + int(self.narrow)

    @property
    def quant_max(self) -> int:
        """The highest code."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def dtype(self) -> torch.dtype:
        """The integer type that stores the codes: int8, uint8, int16 or uint16."""
        import torch

        if self.bits <= 8:
            return torch.int8 if self.signed else torch.uint8
        return torch.int16 if self.signed else torch.uint16

    def ranged(self, **how: Any) -> QuantSpec:
        """The same codes, with a range chosen as ``how`` says and, where it is silent, as in a new spec."""
        return replace(self, **{**_RANGE, **how})

    def __str__(self) -> str:
        axis = "" if self.axis is None else f":axis{self.axis}"
        return f"{'i' if self.signed else 'u'}{self.bits}<{self.quant_min}:{self.quant_max}>{axis}"


_CHOICE = {"observer", "method", "through", "clip", "fixed"}  # of a range
_RANGE = {one.name: one.default for one in fields(QuantSpec) if one.name in _CHOICE}


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """The specs of one layer's weight and output; None for float."""

    weight: QuantSpec | None = None
    activation: QuantSpec | None = None

    @property
    def is_float(self) -> bool:
        """Neither weight nor activation is quantized."""
        return self.weight is None and self.activation is None

    def __str__(self) -> str:
        parts = [f"{key}={spec}" for key, spec in (("w", self.weight), ("a", self.activation)) if spec]
        return " ".join(parts) or "float"


@dataclass(frozen=True, kw_only=True, eq=False)
class QParams:
    """The quantization parameters of a tensor: ``code = clamp(round(x / scale) + zero_point, quant_min, quant_max)``.

    Attributes:
        scale: float32, shape [1] or [C], positive.
        zero_point: int32, same shape, within quant_min..quant_max.
        quant_min: lowest code.
        quant_max: highest code.
        axis: the dimension of length C, or None for one scale a tensor.
        dtype: integer type of the codes.
        compiled: compute with compiled kernels where they apply, see fxqat.quant.compiled_kernels.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor
    quant_min: int
    quant_max: int
    axis: int | None
    dtype: torch.dtype
    compiled: bool = False

    @property
    def span(self) -> tuple[float, float]:
        """The values of the first and the last code, where one scale serves the whole tensor."""
        scale, zero = float(self.scale), int(self.zero_point)
        return (self.quant_min - zero) * scale, (self.quant_max - zero) * scale


def _check_numbers(spec: QuantSpec) -> None:
    for field in ("signed", "symmetric", "narrow", "power_of_two"):
        _require(isinstance(getattr(spec, field), bool), field, getattr(spec, field), "true or false")
    _require(_is_int(spec.bits) and 2 <= spec.bits <= 16, "bits", spec.bits, "an integer from 2 to 16")
    _require(spec.axis is None or _is_int(spec.axis), "axis", spec.axis, "an integer or none")
    _require(_within(spec.percentile, 50, 100), "percentile", spec.percentile, "more than 50 and at most 100")
    _require(_within(spec.averaging_constant, 0, 1), "averaging_constant", spec.averaging_constant, "in (0, 1]")
    if spec.fixed is not None:
        _require(_is_range(spec.fixed), "fixed", spec.fixed, "two finite numbers, the lower first")


def _check_words(spec: QuantSpec) -> None:
    if not str(spec.observer).startswith(TORCH_OBSERVERS):
        also = f", or a class named from {TORCH_OBSERVERS}"
        _require_word(spec.observer, "observer", OBSERVERS, also)
    _require_word(spec.method, "method", METHODS)
    _require_word(spec.scale, "scale", SCALES)
    _require_word(spec.gradient, "gradient", GRADIENTS)
    _require_word(spec.clip, "clip", CLIPS)
    if spec.through is not None:
        _require_word(spec.through, "through", THROUGH)


def _check_together(spec: QuantSpec) -> None:
    per_channel = spec.axis is not None
    _require(spec.bits <= 8 or not per_channel, "bits", spec.bits, "at most 8 where axis is set")
    own = spec.observer in OBSERVERS
    _require(not per_channel or spec.observer == "minmax" or not own, "observer", spec.observer, "minmax with axis set")
    histogram = spec.observer == "histogram"
    each = per_channel and own and spec.method == "mse"
    chosen = spec.method == "standard" or histogram or each
    _require(chosen, "method", spec.method, "standard unless observer is histogram, or mse with axis set")
    searches = histogram and spec.method == "mse"
    _require(spec.through is None or searches, "through", spec.through, "set only with observer histogram, method mse")
    cut = searches or spec.clip == "both"
    _require(cut, "clip", spec.clip, "both unless observer is histogram and method mse")
    learned = spec.scale != "fixed"
    _require(not (learned and spec.fixed), "scale", spec.scale, "fixed where the range is given by `fixed`")
    _require(not (learned and spec.power_of_two), "scale", spec.scale, "fixed where power_of_two is set")
    _require(not (learned and spec.gradient != "ste"), "scale", spec.scale, "fixed where gradient is not ste")
    offset = spec.scale == "lsq+"
    _require(not (offset and spec.symmetric), "scale", spec.scale, "lsq where symmetric leaves no offset to learn")
    _require(not (offset and per_channel), "scale", spec.scale, "lsq where axis is set")


def _require(holds: bool, field: str, value: object, legal: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {value!r} is not legal, expected {legal}")


def _require_word(value: str, field: str, legal: tuple[str, ...], also: str = "") -> None:
    if value not in legal:
        near = nearest(value, legal)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{field}: {value!r} is not legal, expected one of {', '.join(legal)}{also}{hint}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _within(value: object, above: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most


def _is_range(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    low, high = value
    return all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)) and low < high
