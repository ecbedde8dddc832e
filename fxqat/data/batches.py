"""Batches that a caller in Python gives: what they must be, checked in one place, one by one as they are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fxqat.errors import Problem

CHANNELS = 3  # RGB

# A picture resized or augmented in float may leave 0..1 by a rounding error; one normalised or in 0..255 leaves it by
# far more than half of its smallest step.
_SLACK = 0.5 / 255


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Batches of images (B, 3, H, W), float32 in 0..1; can be read again where ``given`` can.

    ``given`` may also hold uint8 in 0..255, which is divided by 255.

    Raises:
        Problem: while it is read: a batch of another type, dtype, shape or range, with its number.
    """

    given: Iterable[object]
    stride: int = 32

    def __post_init__(self) -> None:
        if isinstance(self.given, Tensor) or not isinstance(self.given, Iterable):
            what = f"is {type(self.given).__name__}"
            raise Problem("images", what, expected="a path, or a list of batches", remedy="give [batch]")

    @property
    def once(self) -> bool:
        """Whether they can be read only once."""
        return iter(self.given) is self.given

    def __iter__(self) -> Iterator[Tensor]:
        return (_checked(batch, f"batch {number}", self.stride) for number, batch in enumerate(self.given, start=1))


def _checked(batch: object, where: str, stride: int) -> Tensor:
    if not isinstance(batch, Tensor):
        kind = f"{type(batch).__module__}.{type(batch).__name__}".removeprefix("builtins.")
        remedy = "convert it with torch.from_numpy" if kind == "numpy.ndarray" else "give the images alone"
        raise Problem(where, f"is {kind}", expected="torch.Tensor (B, 3, H, W)", remedy=remedy)
    if batch.dtype not in {torch.float32, torch.uint8}:
        raise Problem(where, f"is {batch.dtype}", expected="torch.float32 in 0..1, or torch.uint8 in 0..255")
    _check_shape(tuple(batch.shape), where, stride)
    if batch.dtype == torch.uint8:
        return batch.float() / 255
    _check_range(batch, where)
    return batch


def _check_shape(shape: tuple[int, ...], where: str, stride: int) -> None:
    if len(shape) != 4 or shape[1] != CHANNELS or not shape[0]:
        last = len(shape) == 4 and shape[3] == CHANNELS
        remedy = "move its channels with permute(0, 3, 1, 2)" if last else ""
        raise Problem(where, f"has shape {shape}", expected=f"(B, {CHANNELS}, H, W)", remedy=remedy)
    if any(size % stride or not size for size in shape[2:]):
        raise Problem(where, f"has shape {shape}", expected=f"height and width that are multiples of {stride}")


def _check_range(batch: Tensor, where: str) -> None:
    low, high = (float(end) for end in batch.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):  # aminmax hands NaN on
        raise Problem(where, "holds NaN or infinity", expected="values in 0..1")
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    remedy = "divide it by 255" if low >= 0 else "undo its normalisation (mean and standard deviation)"
    raise Problem(where, f"holds values from {low:.4g} to {high:.4g}", expected="values in 0..1", remedy=remedy)
