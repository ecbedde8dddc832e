"""What it costs to prepare a model and to read it back: ``python -m bench.loading --weights yolov8n.pt yolov8x.yaml``.

For each checkpoint or architecture: the seconds of ``fxqat.prepare``, of ``fxqat.save`` and of ``fxqat.load`` of what
it wrote, inside a process in which each has run before (median of ``--runs``), the file's size, and how much of it is
not tensors (the graph, the header, the names).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fxqat
from bench.command import parser, run

_HEAD = ("model", "prepare, s", "save, s", "load, s", "file, MB", "not tensors")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    print(f"| {' | '.join(_HEAD)} |", f"| ---{' | ---:' * (len(_HEAD) - 1)} |", sep="\n")
    rows = []
    for name in options.weights:
        row = _row(name, options)
        times = " | ".join(f"{row[key]:.2f}" for key in ("prepare", "save", "load"))
        print(f"| {row['model']} | {times} | {row['bytes'] / 1e6:.2f} | {row['overhead']:.1%} |", flush=True)
        rows.append(row)
    return rows


def _row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    model = fxqat.load(name)
    prepare, (qat, _) = _seconds(lambda: fxqat.prepare(model, options.policy), options.runs)
    with tempfile.TemporaryDirectory(prefix="fxqat-loading-") as folder:
        path = Path(folder) / "model.fxqat"
        save, _ = _seconds(lambda: fxqat.save(qat, path), options.runs)
        load, again = _seconds(lambda: fxqat.load(path), options.runs)
        size = path.stat().st_size
    stored = {one.data_ptr(): one.nbytes for one in again.gm.state_dict().values()}
    overhead = 1 - sum(stored.values()) / size
    times = {"prepare": prepare, "save": save, "load": load}
    return {"model": Path(name).stem, **times, "bytes": size, "overhead": overhead}


def _seconds(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The median of ``runs`` after one that does not count, and the last one's result."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), result


def _parser() -> argparse.ArgumentParser:
    made = parser("loading", __doc__)
    made.add_argument("--weights", nargs="+", required=True, metavar="MODEL", help=".pt files or architectures")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--runs", type=int, default=7, help="of each, median (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
