"""Learning rates by epoch: each schedule is a factor of lr0, worked out anew from the epoch alone, so that a resumed
training needs nothing but its history."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from fxqat.errors import Problem


class Schedule(Protocol):
    """A factor of the learning rate."""

    def __call__(self, epoch: float, history: Sequence[float]) -> float:
        """The factor in ``epoch`` (0 is the first one trained), given the mAP after each epoch before it."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """``last + (1 - last) * (1 + cos(pi * epoch / epochs)) / 2``; Ultralytics' cos_lr."""

    epochs: int
    last: float = 0.01

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        """The factor."""
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * min(epoch / self.epochs, 1))) / 2


@dataclass(frozen=True, kw_only=True)
class Linear:
    """From 1 down to ``last``; Ultralytics' default."""

    epochs: int
    last: float = 0.01

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        """The factor."""
        return max(1 - epoch / self.epochs, 0) * (1 - self.last) + self.last


PHASES = ("warm-up", "pre-quantization", "qat", "decay")


@dataclass(frozen=True, kw_only=True)
class QATLearningRateScheduler:
    """Four phases: warm-up, pre-quantization, quantization-aware training, cosine decay.

    Attributes:
        epochs: all in all.
        last: factor at the end.
        warmup: share of the epochs in which the factor rises from ``start`` to 1.
        prequantization: share after that at factor 1, for a ProgressiveQuantization that is not complete yet.
        qat: share after that at factor ``rate``.
        rate: of the third phase, which the decay starts from.
        start: factor at the very beginning.

    Raises:
        ValueError: shares that are negative or leave nothing for the decay.
    """

    epochs: int
    last: float = 0.01
    warmup: float = 0.1
    prequantization: float = 0.2
    qat: float = 0.3
    rate: float = 1.0
    start: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.warmup, self.prequantization, self.qat)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ValueError(f"warmup, prequantization, qat: {shares} are not legal, expected shares that sum below 1")

    def phase(self, epoch: float) -> str:
        """One of PHASES."""
        done = epoch / self.epochs
        ends = (self.warmup, self.warmup + self.prequantization, self.warmup + self.prequantization + self.qat)
        return next((name for name, end in zip(PHASES, ends, strict=False) if done < end - 1e-9), PHASES[-1])

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        """The factor."""
        phase, done = self.phase(epoch), epoch / self.epochs
        if phase == "warm-up":
            return self.start + (1 - self.start) * done / self.warmup
        if phase == "pre-quantization":
            return 1.0
        if phase == "qat":
            return self.rate
        begin = self.warmup + self.prequantization + self.qat
        share = min((done - begin) / (1 - begin), 1)
        return self.last + (self.rate - self.last) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class TorchSchedule:
    """A scheduler of torch.optim.lr_scheduler, run on a rate of 1 up to the wanted epoch.

    Attributes:
        name: CosineAnnealingWarmRestarts, StepLR or ReduceLROnPlateau (which watches the mAP).
        options: its arguments.
    """

    name: str
    options: Mapping[str, Any]

    def __call__(self, epoch: float, history: Sequence[float]) -> float:
        """The factor in the whole epoch that ``epoch`` lies in."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        watches = self.name == "ReduceLROnPlateau"
        made = getattr(torch.optim.lr_scheduler, self.name)(
            optimizer, **({"mode": "max"} if watches else {}), **self.options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has not stepped
            for done in range(int(epoch)):
                made.step(*([history[done]] if watches else []))
        return float(optimizer.param_groups[0]["lr"])


_TORCH = ("CosineAnnealingWarmRestarts", "StepLR", "ReduceLROnPlateau")
# What torch asks for and has no default of, as parts of the training.
_PARTS: Mapping[str, Mapping[str, int]] = {"CosineAnnealingWarmRestarts": {"T_0": 2}, "StepLR": {"step_size": 3}}
_OURS = {"cosine": Cosine, "linear": Linear, "qat": QATLearningRateScheduler}
SCHEDULES = (*_OURS, *_TORCH)


def make_schedule(name: str, options: Mapping[str, Any], *, epochs: int, last: float) -> Schedule:
    """The schedule called ``name``; unless told otherwise, torch's StepLR falls at each third of the epochs and
    CosineAnnealingWarmRestarts starts again after half of them.

    Raises:
        Problem: unknown, or options that it does not take.
    """
    if name not in SCHEDULES:
        raise Problem("schedule", f"unknown schedule {name!r}", expected=f"one of: {', '.join(SCHEDULES)}")
    try:
        if name in _TORCH:
            usual = {option: max(1, epochs // parts) for option, parts in _PARTS.get(name, {}).items()}
            made: Schedule = TorchSchedule(name=name, options={**usual, **options})
            made(0, ())
            return made
        ours: Any = _OURS[name]
        return cast(Schedule, ours(epochs=epochs, last=last, **options))
    except (TypeError, ValueError) as error:
        raise Problem("schedule_options", f"{name}: {error}") from error
