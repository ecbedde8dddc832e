"""The integer arithmetics that runtimes compute in, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from fxqat.quant import litert_kernels, ort_kernels, xnnpack_kernels

Scales = tuple[float, float, float]
Zeros = tuple[int, int, int]


class Arithmetic(Protocol):
    """A module of one function an operation; each says its formula. Codes are integers in any dtype, and (low, high)
    are the lowest and the highest code of the result."""

    def requantize(
        self, accumulator: Tensor, scales: tuple[float, Tensor, float], zero_point: int, low: int, high: int
    ) -> Tensor:
        """Codes of exact sums (N, C, ...), scales being those of input, weight and output."""

    def sigmoid(
        self, codes: Tensor, scale: float, zero_point: int, out_scale: float, out_zero: int, low: int, high: int
    ) -> Tensor:
        """Codes of the sigmoid of codes."""

    def mul(self, a: Tensor, b: Tensor, scales: Scales, zeros: Zeros, low: int, high: int) -> Tensor:
        """Codes of a product."""

    def add(self, a: Tensor, b: Tensor, scales: Scales, zeros: Zeros, low: int, high: int) -> Tensor:
        """Codes of a sum."""

    def quantize(self, x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
        """Codes of float32 numbers."""


ARITHMETICS: Mapping[str, Arithmetic] = {
    "ort-x86": ort_kernels,
    "xnnpack": xnnpack_kernels,
    "litert-reference": litert_kernels,
}
