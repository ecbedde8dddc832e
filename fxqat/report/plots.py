"""Plots as SVG: text of the page's own font, colours of its own style, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from fxqat.report.values import Spread
from fxqat.sensitivity.error_report import SiteError

MOST_DB, LEAST_DB = 60.0, -5.0  # an SQNR beyond is drawn at the edge
_WIDTH, _HEIGHT = 1000.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 14.0, 44.0
_SPARK_WIDTH, _SPARK_HEIGHT = 132.0, 30.0


@dataclass(frozen=True, kw_only=True)
class _Frame:
    count: int
    high: float

    def x(self, index: float) -> float:
        return _LEFT + (index + 0.5) * (_WIDTH - _LEFT - _RIGHT) / max(self.count, 1)

    def y(self, value: float) -> float:
        clipped = min(max(value, LEAST_DB), self.high)
        return _TOP + (self.high - clipped) / (self.high - LEAST_DB) * (_HEIGHT - _TOP - _BOTTOM)


def profile(rows: Sequence[SiteError]) -> Markup:
    """SQNR along the network: dots of each tensor's own rounding, triangles of each weight's, a line of what adds up.

    Shapes differ, so that colour alone says nothing.
    """
    finite = [value for row in rows for value in _decibels(row) if math.isfinite(value)]
    frame = _Frame(count=len(rows), high=min(MOST_DB, 10 * math.ceil(max(finite, default=40) / 10)))
    label = f"SQNR in decibels at {len(rows)} tensors, in the order of the computation; the table below has the numbers"
    body = "".join([*_grid(frame), *_blocks(frame, rows), _line(frame, rows), *_dots(frame, rows)])
    return _svg(_WIDTH, _HEIGHT, body, label, "profile")


def spark(spread: Spread) -> Markup:
    """A histogram on a logarithmic scale, the range of the codes shaded and its ends marked."""
    most = math.log1p(max(spread.counts))
    step = _SPARK_WIDTH / len(spread.counts)
    points = [f"M0 {_SPARK_HEIGHT:.0f}"]
    for count in spread.counts:
        top = _SPARK_HEIGHT - (math.log1p(count) / most if most else 0.0) * (_SPARK_HEIGHT - 3)
        points.append(f"V{top:.1f}h{step:.1f}")
    span = spread.high - spread.low
    first, last = ((end - spread.low) / span * _SPARK_WIDTH for end in (spread.first, spread.last))
    inside = f'<rect class="range" x="{first:.1f}" width="{last - first:.1f}" height="{_SPARK_HEIGHT:.0f}"/>'
    bars = f'<path class="bars" d="{"".join(points)}V{_SPARK_HEIGHT:.0f}Z"/>'
    ends = f'<path class="ends" d="M{first:.1f} 0V{_SPARK_HEIGHT:.0f}M{last:.1f} 0V{_SPARK_HEIGHT:.0f}"/>'
    label = f"values from {spread.low:.3g} to {spread.high:.3g}; codes cover {spread.first:.3g} to {spread.last:.3g}"
    return _svg(_SPARK_WIDTH, _SPARK_HEIGHT, inside + bars + ends, label, "spark")


def _svg(width: float, height: float, body: str, label: str, kind: str) -> Markup:
    # every part of the body is a number or escaped
    head = f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{body}</svg>")


def _decibels(row: SiteError) -> Iterator[float]:
    yield from (value for value in (row.sqnr, row.weight_sqnr, row.accumulated_sqnr) if value is not None)


def _grid(frame: _Frame) -> Iterator[str]:
    for value in range(0, int(frame.high) + 1, 10):
        y = frame.y(value)
        yield f'<path class="grid" d="M{_LEFT:.0f} {y:.1f}H{_WIDTH - _RIGHT:.0f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{value}</text>'
    yield f'<text class="tick" x="4" y="{_TOP - 2:.0f}">dB</text>'


def _blocks(frame: _Frame, rows: Sequence[SiteError]) -> Iterator[str]:
    """A tick where each block of the source model begins, and its number."""
    bottom, after = _HEIGHT - _BOTTOM, -math.inf
    for name, index in _starts(row.site for row in rows).items():
        x = frame.x(index)
        yield f'<path class="grid" d="M{x:.1f} {_TOP:.0f}V{bottom + 5:.0f}"/>'
        if x - after > 20 and name.startswith("model."):
            yield f'<text class="tick" x="{x:.1f}" y="{bottom + 18:.0f}">{escape(name.removeprefix("model."))}</text>'
            after = x
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="tick" x="{middle:.0f}" y="{_HEIGHT - 6:.0f}" text-anchor="middle">block of the model</text>'


def _starts(sites: Iterable[str]) -> dict[str, int]:
    starts = dict[str, int]()
    for index, site in enumerate(sites):
        starts.setdefault(".".join(site.split(".")[:2]), index)
    return starts


def _line(frame: _Frame, rows: Sequence[SiteError]) -> str:
    inner = _inside_silu({row.site for row in rows})
    kept = [(index, row.accumulated_sqnr) for index, row in enumerate(rows) if row.site not in inner]
    points = " ".join(f"{frame.x(index):.1f},{frame.y(value):.1f}" for index, value in kept)
    return f'<polyline class="accumulated" points="{points}"/>'


def _inside_silu(sites: set[str]) -> set[str]:
    """Tensors within a SiLU: rounding that hurts them and ends near 0 hurts nothing after it."""
    whole = {site.removesuffix(".silu") for site in sites if site.endswith(".silu")}
    return whole | {f"{site}.sigmoid" for site in whole}


def _dots(frame: _Frame, rows: Sequence[SiteError]) -> Iterator[str]:
    for index, row in enumerate(rows):
        x = frame.x(index)
        if row.sqnr is not None:
            y = frame.y(row.sqnr)
            title = f"{row.site}: {row.sqnr:.1f} dB"
            yield f'<circle class="own" cx="{x:.1f}" cy="{y:.1f}" r="2.6"><title>{escape(title)}</title></circle>'
        if row.weight_sqnr is not None:
            y = frame.y(row.weight_sqnr)
            title = f"weight of {row.site}: {row.weight_sqnr:.1f} dB"
            shape = f"M{x:.1f} {y - 4:.1f}l3.8 6.6h-7.6z"
            yield f'<path class="weight" d="{shape}"><title>{escape(title)}</title></path>'
