"""Plots of an error report, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fxqat.files import make_folder, replacing
from fxqat.sensitivity.error_report import ErrorReport, SiteError

BARS = 30
_DECIBELS = 60.0  # an infinite SQNR is drawn here


def draw(report: ErrorReport, folder: str | Path) -> list[Path]:
    """Write ``depth.png`` (SQNR along the network), ``share.png`` (who causes the output's error) and ``ranges.png``
    (clipping against range use) to ``folder``, which is made.

    Raises:
        Problem: the folder cannot be made.
    """
    folder = make_folder(folder, "--plots")
    drawn = {"depth": _depth, "share": _share, "ranges": _ranges}
    return [_save(draw_one(report), folder / f"{name}.png") for name, draw_one in drawn.items()]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path


def _depth(report: ErrorReport) -> Any:
    figure, axes = _axes(12, 5)
    place = {row.site: index for index, row in enumerate(report.rows)}
    for label, column, style in (
        ("its own rounding, values", "sqnr", {"marker": "o", "ms": 3, "ls": ""}),
        ("its own rounding, weights", "weight_sqnr", {"marker": "^", "ms": 4, "ls": ""}),
        ("accumulated, everything on", "accumulated_sqnr", {"lw": 1.2}),
    ):
        found = [(place[row.site], getattr(row, column)) for row in report.rows if getattr(row, column) is not None]
        axes.plot([x for x, _ in found], [min(y, _DECIBELS) for _, y in found], label=label, **style)
    starts = _blocks(report.rows)
    axes.set_xticks(list(starts.values()), list(starts), fontsize=7, rotation=90)
    axes.set(
        ylabel="SQNR, dB (higher is better)", title=f"{report.model} under {report.policy}: error along the network"
    )
    axes.legend(frameon=False)
    return figure


def _blocks(rows: Sequence[SiteError]) -> dict[str, int]:
    """Where each top-level block of the source model begins."""
    starts: dict[str, int] = {}
    for index, row in enumerate(rows):
        starts.setdefault(".".join(row.site.split(".")[:2]), index)
    return starts


def _share(report: ErrorReport) -> Any:
    rows = report.sorted("share")[:BARS][::-1]
    figure, axes = _axes(9, 1 + 0.24 * len(rows))
    both = [row.alone + row.weight_alone for row in rows]
    scale = [100 * row.share / whole if whole else 0.0 for row, whole in zip(rows, both, strict=True)]
    values = [row.alone * factor for row, factor in zip(rows, scale, strict=True)]
    weights = [row.weight_alone * factor for row, factor in zip(rows, scale, strict=True)]
    names = [row.site for row in rows]
    axes.barh(names, values, label="rounding its values")
    axes.barh(names, weights, left=values, label="rounding its weight", hatch="///", alpha=0.6)
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="share of the output's error, %", title=f"{report.model} under {report.policy}: who causes it")
    axes.legend(frameon=False)
    return figure


def _ranges(report: ErrorReport) -> Any:
    figure, axes = _axes(7, 5)
    rows = [row for row in report.rows if row.used is not None and row.clipped is not None]
    used, clipped = ([100 * float(getattr(row, name)) for row in rows] for name in ("used", "clipped"))
    axes.scatter(used, clipped, s=14)
    for row in sorted(rows, key=lambda row: -row.share)[:8]:
        axes.annotate(row.site, (100 * (row.used or 0), 100 * (row.clipped or 0)), fontsize=6)
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set(xlabel="range used, %", ylabel="values clipped, %", title="Ranges; the eight worst sites are named")
    return figure
