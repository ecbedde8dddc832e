"""The picture of accuracy against speed: ``python -m bench.peers_picture peers.json --processor "..." -o peers.png``.

``peers.json`` is what ``bench.peers`` writes. A panel for each runtime; a tool whose file has no accuracy is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.command import run

LOWEST = 0.1  # mAP below which a file is broken and would hide the others
PANELS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert_2": "LiteRT, 2 threads"}
DPI = 130
LETTER, LINE = 6.0, 15.0  # width of a letter and height of a line of labels, pixels at 100 dots an inch
OURS, FLOAT, OTHERS = "tab:blue", "black", "tab:gray"
Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, draw; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _drawn)


def _drawn(options: argparse.Namespace) -> None:
    rows = json.loads(Path(options.peers).read_text())
    draw(rows, Path(options.output), processor=options.processor)
    print(f"wrote {options.output}")


def draw(rows: Sequence[Row], path: Path, *, processor: str = "") -> None:
    """mAP50-95 against speed, one panel for each runtime in which a file was timed.

    Args:
        rows: of peers.json.
        path: of the picture.
        processor: that the times were taken on, for the title.
    """
    from matplotlib.figure import Figure

    runtimes = [one for one in PANELS if shown(rows, one)] or [next(iter(PANELS))]
    figure = Figure(figsize=(6 * len(runtimes), 4.6), layout="constrained")
    panels = figure.subplots(1, len(runtimes), sharey=True, squeeze=False)[0]
    for axes, runtime in zip(panels, runtimes, strict=True):
        axes.set(
            title=PANELS[runtime], xlabel="speed, times Ultralytics' FP32 ONNX file", xlim=(0, _fastest(rows) * 1.7)
        )
        axes.grid(alpha=0.3)
        for row in shown(rows, runtime):
            _point(axes, row, runtime)
    panels[0].set_ylabel("mAP50-95, with the 95 % interval of the loss")
    figure.suptitle(f"Files in the runtime they are made for{f' ({processor})' if processor else ''}", fontsize=11)
    figure.draw_without_rendering()  # labels are placed by where points come to lie
    for axes, runtime in zip(panels, runtimes, strict=True):
        _label(axes, shown(rows, runtime), runtime)
    figure.savefig(path, dpi=DPI)


def _fastest(rows: Sequence[Row]) -> float:
    return max([float(row["latency"][runtime]["speed"]) for runtime in PANELS for row in shown(rows, runtime)] or [1.0])


def shown(rows: Sequence[Row], runtime: str) -> list[Row]:
    """What was timed in ``runtime`` and evaluated in it; the float file, which every speed refers to, in both."""
    return [
        row
        for row in rows
        if row.get("map5095", 0) > LOWEST
        and runtime in row.get("latency", {})
        and (row["runtime"] == runtime or _is_float(row))
    ]


def _point(axes: Any, row: Row, runtime: str) -> None:
    x, y, drift = row["latency"][runtime]["speed"], row["map5095"], row.get("drift")
    if drift:
        low, high = ((drift["points"] - drift["low"]) / 100, (drift["high"] - drift["points"]) / 100)
        axes.errorbar(x, y, yerr=[[low], [high]], color=_colour(row), alpha=0.35, linewidth=1)
    axes.plot(x, y, "o", color=_colour(row), markersize=7)


def _label(axes: Any, rows: Sequence[Row], runtime: str) -> None:
    """The titles beside their points; where one would lie on another, it moves down."""
    placed: list[tuple[float, float, float]] = []  # left, right, height
    for row in sorted(rows, key=lambda row: -float(row["map5095"])):
        point = (row["latency"][runtime]["speed"], row["map5095"])
        title = row["title"].replace("`", "")
        left, top = axes.transData.transform(point)
        right = left + len(title) * LETTER
        height = top
        for other_left, other_right, other in placed:
            if left < other_right and other_left < right and height > other - LINE:
                height = other - LINE
        placed.append((left, right, height))
        shift = (8, (height - top) * 72 / axes.figure.dpi - 3)
        axes.annotate(title, point, fontsize=8, color=_colour(row), xytext=shift, textcoords="offset points")


def _colour(row: Row) -> str:
    return FLOAT if _is_float(row) else OURS if row["name"].startswith("fxqat") else OTHERS


def _is_float(row: Row) -> bool:
    return not row.get("drift")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.peers_picture", description=(__doc__ or "").partition("\n")[0])
    made.add_argument("peers", metavar="peers.json", help="what bench.peers wrote")
    made.add_argument("--processor", default="", metavar="WORDS", help="for the title")
    made.add_argument("-o", "--output", default="peers.png", metavar="OUT", help="the picture (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
