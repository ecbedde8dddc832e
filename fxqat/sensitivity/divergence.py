"""How far a network's output is from another's: the distance that distillation minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fxqat.models.family import RawOutput
from fxqat.models.links import divergences

Raw = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The distance of a quantized network's output from the float one's, mean over images.

    Attributes:
        divergence: nats, see ``divergence``.
        sqnr: of each raw output, dB, by its title.
        main: the title of the output that says what is in an image.
    """

    divergence: float
    sqnr: Mapping[str, float]
    main: str


def divergence(outputs: Sequence[RawOutput], teacher: Raw, student: Raw) -> Tensor:
    """The distance from ``teacher`` to ``student``, nats, shape (B,): the sum over ``outputs`` of
    ``fxqat.models.links.divergences``."""
    return torch.stack(list(divergences(outputs, teacher, student).values())).sum(0)
