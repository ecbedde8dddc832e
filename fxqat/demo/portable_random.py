"""Random numbers that are the same on every machine and under every NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Dice:
    """A stream of draws, fixed by a key of non-negative integers.

    NumPy promises the raw bits of PCG64 and SeedSequence for good, but not the methods of Generator (NEP 19), so every
    draw here is made from raw bits with exact float64 arithmetic.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def unit(self) -> float:
        """Return a float in [0, 1), a multiple of 2**-53."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """Return a float in [low, high), uniform."""
        return low + (high - low) * self.unit()

    def scale(self, low: float, high: float) -> float:
        """Return a positive float in [low, high) whose logarithm is uniform."""
        return float(low * (high / low) ** self.unit())

    def below(self, count: int) -> int:
        """Return an integer in [0, count)."""
        return int(self.unit() * count)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.unit() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[self.below(len(choices))]

    def octets(self, *shape: int) -> NDArray[np.uint8]:
        """Return uint8 of this shape, uniform over 0..255."""
        count = int(np.prod(shape))
        words = self._bits.random_raw(-(-count // 8)).astype("<u8", copy=False)
        return words.view(np.uint8)[:count].reshape(shape)
