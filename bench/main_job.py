"""The main job on a real checkpoint, every number of it in one run.

``python -m bench.main_job --weights yolov8n.pt --calibration D --data V`` prints tables in Markdown: accuracy of
the exported ONNX against the FP32 ONNX that Ultralytics itself exports (same images, paired bootstrap interval),
latency ratio (each model in a process of its own, taking turns, default session options), file size, time of each
step, how many convolutions run as QLinearConv after ONNX Runtime's optimizations, and the share of codes that
differ.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch

import fxqat
from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.commands.arguments import image_size
from fxqat.evaluation.comparison import ComparisonRow, compare
from fxqat.models import offline
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.runtime.verify import Verification


@dataclass(frozen=True, kw_only=True)
class Made:
    """One policy's files, and what making them took in seconds."""

    policy: str
    ptq: Path
    int8: Path
    onnx: Path
    seconds: dict[str, float]
    integer_convolutions: int
    verification: Verification


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, measure, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fxqat-bench-") as folder:
        result = _measure(options, Path(folder))
    print(_markdown(result))
    return result


def ultralytics_onnx(weights: Path, folder: Path, imgsz: ImageSize) -> Path:
    """The FP32 file of Ultralytics' own exporter, default options."""
    offline.quiet()
    from ultralytics import YOLO

    copy = shutil.copy(weights, folder / f"{weights.stem}_ultralytics.pt")
    threads = torch.get_num_threads()
    try:
        return Path(YOLO(copy).export(format="onnx", imgsz=imgsz.plain))
    finally:
        # Ultralytics leaves one; sums in another order move ranges by an ulp, and that moves mAP by up to 0.1 points
        torch.set_num_threads(threads)


def integer_convolutions(path: Path) -> int:
    """QLinearConv nodes in the graph that ONNX Runtime really executes on this machine."""
    optimized = path.with_suffix(".optimized.onnx")
    session = ort.SessionOptions()
    session.optimized_model_filepath = str(optimized)
    session.log_severity_level = 3
    ort.InferenceSession(str(path), session, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    optimized.unlink()
    return counts["QLinearConv"]


def _make(options: argparse.Namespace, policy: str, folder: Path) -> Made:
    stem, seconds = folder / Path(policy).stem, dict[str, float]()
    model = fxqat.load(options.weights)
    prepared, _ = _timed(seconds, "prepare", lambda: fxqat.prepare(model, policy))
    calibrated = _timed(
        seconds,
        "calibrate",
        lambda: fxqat.calibrate(prepared, options.calibration, imgsz=options.imgsz, images_limit=options.images),
    )
    fxqat.save(calibrated, f"{stem}.fxqat")
    int8, _ = _timed(seconds, "convert", lambda: fxqat.convert(calibrated))
    fxqat.save(int8, f"{stem}_int8.fxqat")
    path = _timed(seconds, "export", lambda: fxqat.export(int8, f"{stem}_int8.onnx", imgsz=options.imgsz))
    found = fxqat.verify(calibrated, path, options.calibration, images_limit=4, imgsz=options.imgsz)
    return Made(
        policy=policy,
        ptq=Path(f"{stem}.fxqat"),
        int8=Path(f"{stem}_int8.fxqat"),
        onnx=path,
        seconds=seconds,
        integer_convolutions=integer_convolutions(path),
        verification=found,
    )


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    base = ultralytics_onnx(Path(options.weights), folder, options.imgsz)
    made = [_make(options, policy, folder) for policy in options.policy or ("critical", "w8a8")]
    models = [base, *(one.onnx for one in made)]
    graphs = [one.int8 for one in made] if options.reference else []
    rows = compare(
        [*models, *graphs], options.data, imgsz=options.imgsz, images_limit=options.images_val, threads=options.threads
    )
    latency = {row.accuracy.model: row.milliseconds for row in rows}
    return {
        "machine": platform.processor() or platform.machine(),
        "versions": {**versions(), "onnxruntime": ort.__version__},
        "command": "python -m bench.main_job " + " ".join(f"--{key} ..." for key in ("weights", "calibration", "data")),
        "rows": [_row(row, latency[base.name], base.stat().st_size) for row in rows],
        "made": {one.policy: _facts(one) for one in made},
    }


def _row(row: ComparisonRow, base_ms: float, base_bytes: int) -> dict[str, Any]:
    summary = row.summary()
    del summary["classes"]
    share = row.megabytes * 1e6 / base_bytes
    return {**summary, "speed": base_ms / row.milliseconds, "size_share": share}


def _facts(made: Made) -> dict[str, Any]:
    found = made.verification
    return {
        "seconds": made.seconds,
        "integer_convolutions": made.integer_convolutions,
        "codes": found.summary()["totals"],
    }


def _timed(seconds: dict[str, float], name: str, work: Any) -> Any:
    start = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - start
    return result


def _markdown(result: dict[str, Any]) -> str:
    lines = [
        "| model | mAP50-95 | against FP32, points [95 %] | mAP50 | speed | MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        drift = row["drift"]
        words = f"{drift['points']:+.2f} [{drift['low']:+.2f}, {drift['high']:+.2f}]" if drift else ""
        speed = f"{row['speed']:.2f}x" if row["model"].endswith(".onnx") else ""
        lines.append(
            f"| {row['model']} | {row['map5095']:.4f} | {words} | {row['map50']:.4f} | {speed} "
            f"| {row['megabytes']:.2f} |"
        )
    lines += [
        "",
        "| policy | QLinearConv | prepare | calibrate | convert | export "
        "| differing codes: trained/reference | reference/ORT |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for policy, facts in result["made"].items():
        seconds = " | ".join(
            f"{facts['seconds'][step]:.1f} s" for step in ("prepare", "calibrate", "convert", "export")
        )
        shares = " | ".join(
            f"{facts['codes'][pair]['share']:.2%}" for pair in ("trained_reference", "reference_runtime")
        )
        lines.append(f"| {policy} | {facts['integer_convolutions']} | {seconds} | {shares} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    made = parser("main_job", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--calibration", required=True, metavar="D", help="images to calibrate on")
    made.add_argument("--data", required=True, metavar="V", help="data set YAML to evaluate on")
    made.add_argument(
        "--policy", action="append", metavar="P", help="may be given again (default: the two shipped ones)"
    )
    made.add_argument("--imgsz", type=image_size, default=DEFAULT_SIZE)
    made.add_argument("--images", type=int, help="calibrate on so many (default: all)")
    made.add_argument("--images-val", type=int, help="evaluate on so many (default: all)")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--reference", action="store_true", help="evaluate the INT8 reference graphs too")
    return made


if __name__ == "__main__":
    sys.exit(main())
