"""SiLU against ReLU on the demo's signs: ``python -m bench.qat_swap --work F``.

The demo's detector learns to do with ReLU from its own SiLU self, without labels; both are calibrated, exported and
measured in ONNX Runtime: mAP on the drawn val split, latency taking turns in processes of their own. What ``--work``
holds is not made again, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fxqat
from bench.command import parser, run
from fxqat.demo import make_dataset
from fxqat.evaluation.accuracy import Accuracy, evaluate, from_onnx
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.latency import measure
from fxqat.models.activations import ACTIVATIONS
from fxqat.models.detector import Detector
from fxqat.passes.swap_activation import swap_activation

MODEL = Path(fxqat.__file__).parent / "demo/signs_yolov8n.pt"
TRAINING: dict[str, Any] = {
    "unlabelled": True,
    "features": 1.0,
    "freeze_bn": 1.0,
    "lr0": 5e-4,
    "batch": 16,
    "warmup_epochs": 1.0,
    "fliplr": 0.0,  # a sign's mirror image is another sign
    "seed": 0,
    "device": "cpu",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    rows = _measure(options, work)
    print(table(rows))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; the first row is what the others are compared with."""
    lines = ["| activation | numbers | mAP50-95 | against the first, points | ms | speed |", "| --- " * 6 + "|"]
    for row in rows:
        speed = rows[0]["milliseconds"] / row["milliseconds"]
        cells = (row["activation"], row["numbers"], f"{row['map5095']:.4f}", row["drift"])
        lines.append(f"| {' | '.join(cells)} | {row['milliseconds']:.2f} | {speed:.2f}x |")
    return "\n".join(lines)


def _measure(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    data = work / "signs" / "data.yaml"
    if not data.is_file():
        data = make_dataset(work / "signs", images=options.images, seed=0)
    teacher = fxqat.load(MODEL)
    swapped = _trained(swap_activation(teacher, options.to), teacher, data, options, work)
    paths: list[tuple[str, str, Path]] = []
    for activation, model in (("SiLU", teacher), (options.to, swapped)):
        for numbers, made in (("FP32", model), ("INT8", _int8(model, data, options))):
            path = work / f"{activation}_{numbers}.onnx"
            fxqat.export(made, path, imgsz=options.imgsz)
            paths.append((activation, numbers, path))
    found = [evaluate(from_onnx(path), data, imgsz=options.imgsz) for _, _, path in paths]
    times = measure([path for *_, path in paths], threads=options.threads, imgsz=options.imgsz, rounds=10)
    return [
        {
            "activation": activation,
            "numbers": numbers,
            "map5095": accuracy.map5095,
            "drift": _drift(found[0], accuracy),
            "milliseconds": time.median,
        }
        for (activation, numbers, _), accuracy, time in zip(paths, found, times, strict=True)
    ]


def _drift(base: Accuracy, other: Accuracy) -> str:
    return "" if other is base else str(paired_drift(base, other))


def _trained(swapped: Detector, teacher: Detector, data: Path, options: argparse.Namespace, work: Path) -> Detector:
    folder = work / options.to
    return fxqat.train(
        swapped,
        data,
        folder=folder,
        teacher=teacher,
        resume=(folder / "weights/state.safetensors").is_file(),
        on_line=lambda line: print(line, flush=True),
        **{**TRAINING, "imgsz": options.imgsz, "epochs": options.epochs},
    )


def _int8(model: Detector, data: Path, options: argparse.Namespace) -> Detector:
    prepared, _ = fxqat.prepare(model, options.policy)
    return fxqat.calibrate(prepared, data, imgsz=options.imgsz, images_limit=128)


def _parser() -> argparse.ArgumentParser:
    made = parser("qat_swap", __doc__)
    made.add_argument("--work", required=True, metavar="FOLDER", help="data, runs and files")
    made.add_argument("--to", default="relu", help=f"one of: {', '.join(ACTIVATIONS)}")
    made.add_argument("--policy", default="w8a8")
    made.add_argument("--images", type=int, default=600, help="images drawn; 65 %% of them train")
    made.add_argument("--epochs", type=int, default=6)
    made.add_argument("--imgsz", type=int, default=320)
    made.add_argument("--threads", type=int, default=2)
    return made


if __name__ == "__main__":
    sys.exit(main())
