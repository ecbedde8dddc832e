"""The way from float to the runtime, as the page shows it: stages, classes, latency and memory in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from fxqat.models.families import DEFAULT, FAMILIES

NONE = "\u2013"
_WIDTH, _LINE, _NAMES, _RIGHT, _TOP, _AXIS = 720.0, 34.0, 130.0, 24.0, 8.0, 34.0


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A stage; everything but ``name`` is text, a dash where there is nothing to compare with."""

    name: str
    map5095: str
    drift: str
    recall: str
    change: str
    precision: str
    shift: str
    lost: str


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A class: its labels, average precision before and after (0..1), the change in points."""

    name: str
    boxes: int
    before: float
    after: float
    points: float


@dataclass(frozen=True, kw_only=True)
class TimeRow:
    """A file's latency under one number of threads and one batch size; times in ms."""

    name: str
    batch: int
    threads: int
    p10: float
    median: float
    p90: float
    speed: float
    speed_low: float
    speed_high: float


class Way:
    """A record of ``fxqat drift``, for the template.

    Args:
        record: as ``fxqat.evaluation.drift_report.read`` gives it.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.threshold = float(record["threshold"])
        self.images = int(record["stages"][0]["images"])
        self.data = str(record["data"])
        self.stages: Sequence[StageRow] = [_stage(row) for row in record["stages"]]
        self.classes: Sequence[ClassRow] = [
            ClassRow(name=name, boxes=boxes, before=before, after=before + points / 100, points=points)
            for name, boxes, before, points in record["by_class"]
        ]
        self.times: Sequence[TimeRow] = [_time(row) for row in record.get("latency", ())]
        self.memory: Sequence[Mapping[str, Any]] = record.get("memory", ())

    @property
    def fastest(self) -> TimeRow | None:
        """The INT8 file one image at a time, with the most threads that were tried."""
        found = [row for row in self.times if row.batch == 1 and row.name.startswith("int8")]
        return max(found, key=lambda row: row.threads, default=None)

    @property
    def metric(self) -> str:
        """The name of what was measured."""
        key = self.record["stages"][0].get("metric")
        known = (one for family in FAMILIES.values() for one in family.metrics)
        return next((one.name for one in known if one.key == key), DEFAULT.metric.name)

    @property
    def picture(self) -> Markup:
        """Its change at each stage, with its interval."""
        return whiskers([(row["stage"], row["drift"]) for row in self.record["stages"]], self.metric)


def _stage(row: Mapping[str, Any]) -> StageRow:
    drift, recall, shift = row["drift"], row["recall"], row["shift"]
    return StageRow(
        name=row["stage"],
        map5095=f"{row['map5095']:.4f}",
        drift=between(drift["points"], drift["low"], drift["high"]) if drift else NONE,
        recall=f"{100 * recall['recall']:.1f} %",
        change=between(recall["points"], recall["low"], recall["high"]) if recall["points"] is not None else NONE,
        precision=f"{100 * recall['precision']:.1f} %",
        shift=between(shift["mean"], shift["low"], shift["high"], 3) if shift else NONE,
        lost=f"{100 * shift['lost']:.2f} %" if shift else NONE,
    )


def _time(row: Mapping[str, Any]) -> TimeRow:
    plain = {key: row[key] for key in ("threads", "p10", "median", "p90", "speed", "speed_low", "speed_high")}
    return TimeRow(name=row["path"], batch=row["shape"][0], **plain)


def between(value: float, low: float, high: float, digits: int = 2) -> str:
    """``-0.29 [-0.70, +0.21]``."""
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def whiskers(rows: Sequence[tuple[str, Mapping[str, float] | None]], metric: str) -> Markup:
    """A line a stage: a dot at the change in points, a bar over its interval; the first stage is the 0."""
    ends = [value for _, drift in rows if drift for value in (drift["low"], drift["high"])]
    low = min(-0.5, math.floor(2 * min(ends, default=0.0)) / 2)
    high = max(0.5, math.ceil(2 * max(ends, default=0.0)) / 2)

    def x(value: float) -> float:
        return _NAMES + (value - low) / (high - low) * (_WIDTH - _NAMES - _RIGHT)

    height = _TOP + _LINE * len(rows) + _AXIS
    body = [*_ruler(low, high, x, height)]
    for index, (name, drift) in enumerate(rows):
        y = _TOP + _LINE * (index + 0.5)
        body.append(f'<text class="tick" x="{_NAMES - 12:.0f}" y="{y + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        points = drift["points"] if drift else 0.0
        title = (
            f"{name}: {between(points, drift['low'], drift['high'])}"
            if drift
            else f"{name}: what others are compared with"
        )
        if drift:
            body.append(f'<path class="whisker" d="M{x(drift["low"]):.1f} {y:.0f}H{x(drift["high"]):.1f}"/>')
        body.append(
            f'<circle class="own" cx="{x(points):.1f}" cy="{y:.0f}" r="5"><title>{escape(title)}</title></circle>'
        )
    label = f"Change of {metric} in points at {len(rows)} stages; the table below has the numbers"
    head = f'<svg class="profile way" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{label}">'
    return Markup(f"{head}{''.join(body)}</svg>")  # every part is a number or escaped


def _ruler(low: float, high: float, x: Any, height: float) -> Sequence[str]:
    bottom, step = height - _AXIS, 0.5 if high - low <= 4 else 1.0 if high - low <= 10 else 10.0
    found = []
    for index in range(math.ceil(low / step), math.floor(high / step) + 1):
        at = x(index * step)
        kind = "zero" if index == 0 else "grid"
        found.append(f'<path class="{kind}" d="M{at:.1f} {_TOP:.0f}V{bottom:.0f}"/>')
        found.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 16:.0f}" text-anchor="middle">{index * step:+.1f}</text>'
        )
    return found
