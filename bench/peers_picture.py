"""The picture of accuracy against speed: ``python -m bench.peers_picture peers.json --processor "..." -o peers.png``.

``peers.json`` is what ``bench.peers`` writes. A panel for each runtime; a tool whose file has no accuracy is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.transforms import Bbox

from bench.command import run

LOWEST = 0.1  # mAP below which a file is broken and would hide the others
PANELS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "litert_2": "LiteRT, 2 threads"}
DPI = 130
SIDE = 5.0  # inches of a panel's width
LETTERS = 9.5  # points of a label's letters
# Where a label may stand from its point, in points: to the right or left of it, ever further below and above.
SHIFTS = [(x, sign * y) for y in range(0, 150, 4) for sign in (-1, 1) for x in (10, -10)]
NEAR = 16  # points: from further away a line leads to the label
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
    """mAP50-95 against speed, one panel for each runtime in which a file was timed, the one with most files on top.

    Args:
        rows: of peers.json.
        path: of the picture.
        processor: that the times were taken on, for the title.
    """
    from matplotlib.figure import Figure

    runtimes = sorted((one for one in PANELS if shown(rows, one)), key=lambda one: -len(shown(rows, one)))
    runtimes = runtimes or [next(iter(PANELS))]
    below = runtimes[1:] or runtimes
    figure = Figure(figsize=(SIDE * len(below), 4 * (1 + (len(runtimes) > 1))), layout="constrained")
    panels: dict[str, Any] = figure.subplot_mosaic(
        [[runtimes[0]] * len(below), below] if len(runtimes) > 1 else [runtimes], sharey=True
    )
    for runtime, axes in panels.items():
        axes.set(
            title=PANELS[runtime],
            xlabel="speed, times FP32 in the same runtime",
        )
        axes.set_xlim(0, _fastest(shown(rows, runtime), runtime) * 1.45)
        axes.grid(alpha=0.3)
        if runtime in (runtimes[0], below[0]):
            axes.set_ylabel("mAP50-95 [95 %]")
        for row in shown(rows, runtime):
            _point(axes, row, runtime)
    figure.suptitle(f"Files in the runtime they are made for{f' ({processor})' if processor else ''}", fontsize=12)
    figure.draw_without_rendering()  # labels are placed by where points come to lie
    for runtime, axes in panels.items():
        _label(axes, shown(rows, runtime), runtime)
    figure.savefig(path, dpi=DPI)


def _fastest(rows: Sequence[Row], runtime: str) -> float:
    return max([float(row["latency"][runtime]["speed"]) for row in rows] or [1.0])


def shown(rows: Sequence[Row], runtime: str) -> list[Row]:
    """What was timed in ``runtime``, evaluated in it and made for it; where no file of the runtime is float, the first
    row, to which every speed refers, too."""
    found = [row for row in rows if row.get("map5095", 0) > LOWEST and runtime in row.get("latency", {})]
    ours = [row for row in found if row["runtime"] == runtime.partition("_")[0] and _made_for(row, runtime)]
    return ours if any(map(_is_float, ours)) else [row for row in found if not row.get("drift")] + ours


def _made_for(row: Row, runtime: str) -> bool:
    """Whether a file is evaluated in the runtime of its own target."""
    return "retargeted to" not in row["title"] or row["title"].endswith(runtime)


def _point(axes: Any, row: Row, runtime: str) -> None:
    x, y, drift = row["latency"][runtime]["speed"], row["map5095"], row.get("drift")
    if drift:
        low, high = ((drift["points"] - drift["low"]) / 100, (drift["high"] - drift["points"]) / 100)
        axes.errorbar(x, y, yerr=[[low], [high]], color=_colour(row), alpha=0.35, linewidth=1)
    axes.plot(x, y, "o", color=_colour(row), markersize=7)


def _label(axes: Any, rows: Sequence[Row], runtime: str) -> None:
    """A title beside each point, as near as it covers no other title or point; from afar a thin line leads to it."""
    points = {row["name"]: (row["latency"][runtime]["speed"], row["map5095"]) for row in rows}
    marks = [axes.transData.transform(point) for point in points.values()]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in marks]
    for row in sorted(rows, key=lambda row: -float(row["map5095"])):
        taken.append(_placed(axes, points[row["name"]], row, taken))


def _placed(axes: Any, point: tuple[float, float], row: Row, taken: Sequence[Bbox]) -> Bbox:
    """Write a label at the first place, by distance, where it fits, or where it covers least; the box that it takes."""
    width, height = _size(axes, _title(row))
    costs = []
    for shift in SHIFTS:
        box = _box(axes, point, shift, width, height)
        costs.append(sum(_shared(box, other) for other in taken) + _outside(box, axes.bbox))
    shift = SHIFTS[costs.index(min(costs))]
    line = {"arrowstyle": "-", "color": _colour(row), "linewidth": 0.5} if abs(shift[1]) > NEAR else None
    how = {"ha": "left" if shift[0] > 0 else "right", "va": "center", "color": _colour(row), "arrowprops": line}
    axes.annotate(_title(row), point, shift, textcoords="offset points", fontsize=LETTERS, **how)
    return _box(axes, point, shift, width, height)


def _size(axes: Any, title: str) -> tuple[float, float]:
    """Width and height of a title, pixels."""
    text = axes.text(0, 0, title, fontsize=LETTERS)
    box = text.get_window_extent()
    text.remove()
    return box.width, box.height


def _box(axes: Any, point: tuple[float, float], shift: tuple[int, int], width: float, height: float) -> Bbox:
    """What a label of this size takes that stands ``shift`` points from a point, pixels."""
    (x, y), dot = axes.transData.transform(point), axes.figure.dpi / 72
    left = x + shift[0] * dot - (width if shift[0] < 0 else 0)
    return Bbox.from_bounds(left, y + shift[1] * dot - height / 2, width, height)


def _shared(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share, square pixels."""
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


def _outside(box: Bbox, around: Bbox) -> float:
    """The area of ``box`` outside of ``around``, square pixels."""
    return box.width * box.height - _shared(box, around)


def _title(row: Row) -> str:
    """The row's, without code marks, what it is made with in brackets, and what the panel's title says."""
    title = re.sub(r" \(.*\)|, (retargeted to )?(openvino|ort-cpu|litert)$", "", row["title"].replace("`", ""))
    return title.replace("LiteRT ", "")


def _colour(row: Row) -> str:
    return FLOAT if _is_float(row) else OURS if row["name"].startswith("fxqat") else OTHERS


def _is_float(row: Row) -> bool:
    return not row.get("drift") or row["title"].endswith("FP32")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench.peers_picture", description=(__doc__ or "").partition("\n")[0])
    made.add_argument("peers", metavar="peers.json", help="what bench.peers wrote")
    made.add_argument("--processor", default="", metavar="WORDS", help="for the title")
    made.add_argument("-o", "--output", default="peers.png", metavar="OUT", help="the picture (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
