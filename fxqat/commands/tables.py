"""Numbers and columns as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]]) -> str:
    """Plain columns, the first on the left, the others on the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


def decibels(value: float | None) -> str:
    """One decimal; ``exact`` where there is no error."""
    if value is None:
        return ""
    return "exact" if math.isinf(value) and value > 0 else f"{value:.1f}"


def percent(value: float | None) -> str:
    """Three digits of a share."""
    return "" if value is None else f"{100 * value:.3g} %"
