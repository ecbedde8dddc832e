"""What calibrating costs: ``python -m bench.calibration --weights yolov8n.pt --calibration D [--json F]``.

Each way is a process of its own, one after the other, over the same letterboxed images: plain forwards of the float
graph, fxqat's calibration methods, and ONNX Runtime's calibrators on the float ONNX file. Processor time covers reading
the images, forwards and choosing the ranges; memory is the peak. What needs more than ``--limit`` MB is ended.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import fxqat
from bench.command import parser, run
from bench.ptq import changed
from fxqat.checkpoint.fxqat_format import versions
from fxqat.data import images

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure way by way, print each as it is done; exit code 2 for bad input."""
    options = _parser().parse_args(arguments)
    return run(options, _answered if options.worker else _measured)


def _answered(options: argparse.Namespace) -> None:
    print(json.dumps(_work(options)))


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    return {"versions": versions(), "rows": _measure(options)}


def _measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    print("| way | processor time, s | against plain | wall, s | peak MB | above plain |\n| --- |" + " --- |" * 5)
    with tempfile.TemporaryDirectory(prefix="fxqat-calibration-") as folder:
        options.onnx = Path(folder) / "float.onnx"
        fxqat.export(fxqat.load(options.weights), options.onnx, imgsz=options.imgsz)
        for name in WAYS:
            if not options.only or name in options.only or not rows:
                rows.append({"way": name} | _answer(name, options))
                print(line(rows[-1], rows[0]), flush=True)
    return rows


def line(row: Row, plain: Row) -> str:
    """A row of the table."""
    if "error" in row:
        return f"| {row['way']} | {row['error']} |  |  |  |  |"
    cells = (
        row["way"],
        f"{row['processor']:.1f}",
        f"{row['processor'] / plain['processor']:.2f}x",
        f"{row['wall']:.1f}",
        f"{row['megabytes']:.0f}",
        f"{row['megabytes'] - plain['megabytes']:+.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _answer(name: str, options: argparse.Namespace) -> Row:
    given = ["--weights", options.weights, "--calibration", options.calibration, "--policy", options.policy]
    given += ["--imgsz", options.imgsz, "--images", options.images, "--threads", options.threads]
    given += ["--limit", options.limit, "--onnx", options.onnx, "--worker", name]
    command = [sys.executable, "-m", "bench.calibration", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        return {"error": f"ended: {said[0][:160]}"}
    row: Row = json.loads(lines[-1])
    return row


def _work(options: argparse.Namespace) -> Row:
    torch.set_num_threads(options.threads)
    limit = int(options.limit * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    run = WAYS[options.worker](options)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return {
        "processor": time.process_time() - processor,
        "wall": time.perf_counter() - wall,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def _batches(options: argparse.Namespace, size: int) -> Any:
    return images.batches(images.image_paths(options.calibration, limit=options.images), options.imgsz, size)


def _plain(options: argparse.Namespace) -> Callable[[], None]:
    model = fxqat.load(options.weights)

    @torch.no_grad()
    def run() -> None:
        for batch in _batches(options, 8):
            model(batch)

    return run


def _ours(options: argparse.Namespace, *, method: str) -> Callable[[], Any]:
    prepared, _ = fxqat.prepare(fxqat.load(options.weights), changed(options.policy, method, "none"))
    return partial(fxqat.calibrate, prepared, options.calibration, images_limit=options.images, imgsz=options.imgsz)


def _onnx_runtime(options: argparse.Namespace, *, method: str) -> Callable[[], None]:
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(_batches(options, 1))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"images": batch.numpy()}

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="fxqat-calibration-") as folder:
            # percentile and entropy are named as in CalibrationMethod; symmetric is the default of its entropy
            found = create_calibrator(
                str(options.onnx),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[method],
            )
            found.collect_data(Reader())
            found.compute_data()

    return run


WAYS: Mapping[str, Callable[[argparse.Namespace], Callable[[], Any]]] = {
    "plain forwards": _plain,
    "fxqat, as shipped": partial(_ours, method="shipped"),
    "fxqat, standard": partial(_ours, method="standard"),
    "fxqat, percentile": partial(_ours, method="percentile"),
    "fxqat, entropy": partial(_ours, method="entropy"),
    "fxqat, mse": partial(_ours, method="mse, not through SiLU"),
    "ONNX Runtime, MinMax": partial(_onnx_runtime, method="MinMax"),
    "ONNX Runtime, Percentile": partial(_onnx_runtime, method="Percentile"),
    "ONNX Runtime, Entropy": partial(_onnx_runtime, method="Entropy"),
}


def _parser() -> argparse.ArgumentParser:
    made = parser("calibration", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--calibration", required=True, metavar="D", help="images to calibrate on")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--images", type=int, default=128)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--limit", type=float, default=12000, metavar="MB", help="memory a process may use")
    made.add_argument("--only", action="append", metavar="NAME", help=f"may be given again: {', '.join(WAYS)}")
    made.add_argument("--onnx", help=argparse.SUPPRESS)
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    sys.exit(main())
