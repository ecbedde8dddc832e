"""Every model family: ``python -m bench.families --work F [--data D.yaml] [--only yolo11]``.

For each architecture (n scale, random weights with the batch norm statistics of real images; ``--weights`` for real
checkpoints): seconds to prepare; the INT8 file of ``--policy`` against Ultralytics' own FP32 ONNX of the same model in
ONNX Runtime (bench.latency's way: a process each, in turns); and the share of the INT8 file's time in depthwise and
other grouped convolutions and in attention. Files are kept in ``--work``: called again, it times what is there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

import fxqat
from bench.command import parser, run
from bench.living import write_living
from bench.profile import profile, sites
from fxqat.data import images
from fxqat.evaluation.latency import Latency, measure
from fxqat.models import offline

ARCHITECTURES = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n",
    "yolov8n-seg", "yolo11n-seg", "yolo26n-seg", "yolov8n-pose", "yolo11n-pose", "yolo26n-pose",
    "yolov8n-obb", "yolo11n-obb", "yolo26n-obb", "yolov8n-cls", "yolo11n-cls", "yolo26n-cls",
)  # fmt: skip
# What attention is made of, in the graph that ONNX Runtime executes.
ATTENTION = {"MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "QGemm", "Softmax", "QLinearSoftmax"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One family: seconds to prepare, both latencies, and where the INT8 file's time goes (shares of 1)."""

    name: str
    prepare: float
    float_file: Latency
    int8_file: Latency
    grouped: float
    attention: float

    def summary(self) -> dict[str, Any]:
        """Every number, ready for JSON."""
        return {**asdict(self), "float_file": self.float_file.summary(), "int8_file": self.int8_file.summary()}

    def line(self) -> str:
        """The row of a Markdown table."""
        speed = f"{self.int8_file.speed:.2f}x [{self.int8_file.speed_low:.2f}, {self.int8_file.speed_high:.2f}]"
        times = f"{self.float_file.median:.1f} | {self.int8_file.median:.1f} | {speed}"
        return f"| {self.name} | {self.prepare:.1f} | {times} | {self.grouped:.0%} | {self.attention:.0%} |"


HEAD = "| model | prepare, s | FP32, ms | INT8, ms | speed [95 %] | grouped convolutions | attention |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, time, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    print(HEAD, "| --- | ---: | ---: | ---: | --- | ---: | ---: |", sep="\n", flush=True)
    rows = []
    for name in options.weights or [one for one in ARCHITECTURES if not options.only or options.only in one]:
        rows.append(_row(Path(name).stem, _files(name, options), options))
        print(rows[-1].line(), flush=True)
    return [row.summary() for row in rows]


def _files(name: str, options: argparse.Namespace) -> tuple[Path, Path, float]:
    """Ultralytics' FP32 file, ours in INT8, and the seconds that prepare took."""
    folder = options.work / Path(name).stem
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, ours, seconds = folder / "model.pt", folder / "int8.onnx", folder / "prepare.txt"
    if not (folder / "model.onnx").is_file():
        _checkpoint(name, checkpoint, options)
        _ultralytics(checkpoint, options)
    if not ours.is_file():
        model = fxqat.load(checkpoint)
        start = time.perf_counter()
        qat, _ = fxqat.prepare(model, options.policy, target=options.target)
        seconds.write_text(str(time.perf_counter() - start))
        int8, _ = fxqat.convert(fxqat.calibrate(qat, list(_batches(options)), imgsz=options.imgsz))
        fxqat.export(int8, ours, imgsz=options.imgsz)
    return folder / "model.onnx", ours, float(seconds.read_text())


def _batches(options: argparse.Namespace) -> Iterator[torch.Tensor]:
    found = images.image_paths(options.data, limit=options.images)
    return images.batches(found, options.imgsz, 4)


def _checkpoint(name: str, path: Path, options: argparse.Namespace) -> None:
    if name.endswith(".pt"):
        shutil.copy(name, path)
    else:
        write_living(f"{name}.yaml", path, next(_batches(options)))


def _ultralytics(checkpoint: Path, options: argparse.Namespace) -> None:
    offline.quiet()
    from ultralytics import YOLO

    YOLO(checkpoint).export(format="onnx", imgsz=options.imgsz)


def _row(name: str, files: tuple[Path, Path, float], options: argparse.Namespace) -> Row:
    theirs, ours, seconds = files
    base, quick = measure([theirs, ours], threads=options.threads, rounds=options.rounds)
    grouped, attention = _shares(ours, options.threads)
    return Row(name=name, prepare=seconds, float_file=base, int8_file=quick, grouped=grouped, attention=attention)


def _shares(path: Path, threads: int) -> tuple[float, float]:
    """The shares of a file's time in grouped convolutions, and in attention's products and softmax."""
    proto = onnx.load(path)
    names = sites(proto)
    groups = {
        names[node.name]
        for node in proto.graph.node
        if node.op_type == "Conv" and any(one.name == "group" and one.i > 1 for one in node.attribute)
    }
    found = profile(path, threads=threads, runs=10)
    total = sum(one.microseconds for one in found)
    grouped = sum(one.microseconds for one in found if one.site in groups and "Conv" in one.kind)
    attention = sum(one.microseconds for one in found if one.kind in ATTENTION)
    return grouped / total, attention / total


def _parser() -> argparse.ArgumentParser:
    made = parser("families", __doc__)
    made.add_argument("--work", required=True, type=Path, metavar="DIR", help="keeps the models and files")
    made.add_argument("--data", default="coco128.yaml", metavar="D.yaml", help="images to calibrate on")
    made.add_argument("--only", metavar="TEXT", help="architectures whose name holds this")
    made.add_argument("--weights", nargs="+", metavar="FILE.pt", help="checkpoints in place of architectures")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--target", metavar="T", help="of the INT8 file (default: the policy's)")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--images", type=int, default=8, help="to calibrate on (default: %(default)s)")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--rounds", type=int, default=8)
    return made


if __name__ == "__main__":
    sys.exit(main())
