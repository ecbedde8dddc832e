"""A row of a training's history, as if it had been measured."""

from __future__ import annotations


def row(epoch: int, value: float, **parts: float) -> dict[str, float]:
    """Epoch ``epoch`` with mAP ``value`` and parts of the loss by name."""
    return {"epoch": epoch, "map5095": value, "map50": value, "lr": 1e-5 * epoch, **parts}
