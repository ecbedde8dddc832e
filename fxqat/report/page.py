"""The page: what was collected, poured into one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from fxqat.report.collect import Content
from fxqat.report.drawing import Box, Drawing, draw
from fxqat.report.drift_section import Way
from fxqat.report.model_breakdown import Part
from fxqat.report.plots import profile, spark
from fxqat.report.verdict import worst
from fxqat.sensitivity.error_report import SiteError

DECIBELS = (25.0, 20.0, 15.0, 10.0)  # an accumulated SQNR below each is one step worse
SHARES = (0.005, 0.01, 0.02, 0.05)  # a share from each on is one step more
NONE = "\u2013"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A site of the graph as it is drawn.

    Attributes:
        part: what it is.
        box: where.
        first: line of its label.
        second: line of its label, empty for small ones.
        levels: 0 (best, least) to 4 by what colours it: ``error``, ``share``, ``work``; "" where there is no number.
    """

    part: Part
    box: Box
    first: str
    second: str
    levels: Mapping[str, str]


_COUNTED = 1000  # differing integers; more are shown as a share


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of the summary, its unit and its meaning."""

    value: str
    unit: str
    words: str


class View:
    """What the template asks for.

    Args:
        content: see there.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.parts = content.breakdown.parts
        self.rows: Sequence[SiteError] = content.measured.errors.rows if content.measured.errors else ()
        self._total = sum(part.macs for part in self.parts) or 1
        self.way = Way(content.way) if content.way else None

    @cached_property
    def drawing(self) -> Drawing:
        """The graph."""
        return draw([part.drawn() for part in self.parts])

    @cached_property
    def nodes(self) -> list[Node]:
        """In the order of the computation."""
        return [self._node(part) for part in self.parts]

    @cached_property
    def output_of(self) -> dict[str, SiteError]:
        """The row of the tensor that each site gives; one that only moves values gives what it was given."""
        by_site = {row.site: row for row in self.rows}
        found = dict[str, SiteError]()
        for part in self.parts:
            row = by_site.get(f"{part.site}.silu") or by_site.get(part.site)
            row = row or next((found[one] for one in part.inputs if one in found and part.integer), None)
            if row is not None:
                found[part.site] = row
        return found

    @cached_property
    def share_of(self) -> dict[str, float]:
        """The part of the output's error that each site's quantizers cause."""
        shares = dict[str, float]()
        for row in self.rows:
            shares[row.decided] = shares.get(row.decided, 0.0) + row.share
        return shares

    def work(self, part: Part) -> float:
        """Multiply-adds as a part of all."""
        return part.macs / self._total

    @property
    def worst(self) -> Sequence[SiteError]:
        """Who causes most of the error."""
        errors = self.content.measured.errors
        return worst(errors) if errors else ()

    @property
    def figures(self) -> list[Figure]:
        """The numbers of the summary."""
        found = self.content.measured
        figures = []
        if found.drift:
            words = f"points of {found.metric}, between {found.drift.low:+.2f} and {found.drift.high:+.2f}"
            figures.append(Figure(value=f"{found.drift.points:+.2f}", unit="", words=words.replace("-0.00", "0.00")))
        if found.agreement and found.agreement.before:
            share = found.agreement.kept / found.agreement.before
            words = "of float's detections found again" if found.agreement.covers else "of images keep float's class"
            figures.append(Figure(value=f"{share:.1%}"[:-1], unit="%", words=words))
        figures.append(Figure(value=f"{found.integer_share:.1%}"[:-1], unit="%", words="of multiply-adds in integers"))
        if found.codes:
            words = f"of {found.codes.codes / 1e6:.1f} M integers differ from the reference's"
            few = found.codes.differing < _COUNTED
            value = str(found.codes.differing) if few else f"{found.codes.share:.2%}"[:-1]
            figures.append(Figure(value=value, unit="" if few else "%", words=words))
        if self.way and (fast := self.way.fastest):
            words = (
                f"the speed of float ({fast.threads} threads), between {fast.speed_low:.2f} and {fast.speed_high:.2f}"
            )
            figures.append(Figure(value=f"{fast.speed:.2f}", unit="x", words=words))
        if timed := found.latency:
            words = f"the speed of float for one image, between {timed.speed_low:.2f} and {timed.speed_high:.2f}"
            figures.append(Figure(value=f"{timed.speed:.2f}", unit="x", words=words))
        if found.size:
            figures.append(Figure(value=f"{found.size:.0%}"[:-1], unit="%", words="of the float weights' size"))
        if found.errors:
            output = found.errors.output
            db = output.sqnr[output.main]
            figures.append(Figure(value=decibels(db), unit="dB", words=f"SQNR of the {output.main}"))
        return figures

    @property
    def profile(self) -> Markup:
        """SQNR along the network."""
        return profile(self.rows)

    @property
    def sparks(self) -> dict[str, Markup]:
        """The histogram of each quantized tensor."""
        return {site: spark(spread) for site, spread in self.content.spreads.items()}

    @property
    def json(self) -> Markup:
        """What the panel of the graph shows of each node."""
        words = json.dumps({node.part.site: self._details(node.part) for node in self.nodes}, ensure_ascii=False)
        return Markup(words.replace("<", "\\u003c"))

    def _details(self, part: Part) -> dict[str, str]:
        rule, row = part.decision.rule, self.output_of.get(part.site)
        found = {
            "Operation": f"{part.op} {part.words}".strip(),
            "Precision": f"{part.precision}, by line {rule.line} of the policy",
            "Why": rule.why,
            "SQNR accumulated": f"{decibels(row.accumulated_sqnr)} dB" if row else "",
            "Share of the error": percent(self.share_of.get(part.site)) if self.rows else "",
            "Multiply-adds": percent(self.work(part)) if part.macs else "",
            "Reads": ", ".join(part.inputs),
        }
        return {key: value for key, value in found.items() if value and value != NONE}

    def _node(self, part: Part) -> Node:
        row = self.output_of.get(part.site)
        db = f" · {decibels(row.accumulated_sqnr)} dB" if row else ""
        levels = {
            "error": str(_level(-row.accumulated_sqnr, [-one for one in DECIBELS])) if row else "",
            "share": str(_level(self.share_of.get(part.site, 0.0), SHARES)) if self.rows else "",
            "work": str(_level(self.work(part), SHARES)) if part.layer else "",
        }
        first, second = (part.short, part.precision + db) if part.layer else (_shortened(part.short), "")
        return Node(part=part, box=self.drawing.boxes[part.site], first=first, second=second, levels=levels)


def render(content: Content) -> str:
    """The whole page."""
    folder = resources.files("fxqat.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters.update(decibels=decibels, percent=percent, number=number)
    page = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    view = View(content)
    parts: dict[str, Any] = {
        "style": Markup((folder / "page.css").read_text(encoding="utf-8")),
        "script": Markup((folder / "page.js").read_text(encoding="utf-8")),
    }
    return page.render(view=view, c=content, **parts) + "\n"


def decibels(value: float | None) -> str:
    """One digit after the point; the sign for infinity."""
    if value is None:
        return NONE
    return f"{value:.1f}" if math.isfinite(value) else "∞"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent; more digits where it is small."""
    if value is None:
        return NONE
    if 0 < abs(value) < 0.0005:
        return f"{value:.0e}".replace("e-0", "e-") if value < 1e-6 else f"{value * 100:.4f} %"
    return f"{value * 100:.{digits}f} %"


def number(value: float | None) -> str:
    """Three significant digits."""
    return NONE if value is None else f"{value:.3g}"


def _level(value: float, steps: Sequence[float]) -> int:
    return sum(value >= step for step in steps)


def _shortened(words: str, most: int = 14) -> str:
    return words if len(words) <= most else f"…{words[-most + 1 :]}"
