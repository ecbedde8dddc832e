"""Found policies beside the shipped ones: ``python -m bench.search --weights W --calibration D --data V --policy P``.

Every policy is prepared, calibrated on D, exported and validated on V in ONNX Runtime against the float model exported
by the same code (same images, paired bootstrap), its predictions are compared with float's without labels (which did
not rank layouts as mAP does), and all files are timed in one interleaved run, each in a process of its own. ``--work``
keeps files and accuracies, so that a run can be taken up again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fxqat
from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.data import images
from fxqat.evaluation.accuracy import Accuracy, evaluate, from_onnx
from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.disagreement import confident, disagreement, ratio
from fxqat.evaluation.latency import measure

SHIPPED = ("critical", "w8a8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, measure, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    result = _measure(options)
    print(_table(result["rows"]))
    return result


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    policies = [*SHIPPED, *options.policy]
    files = [_made(policy, work, options) for policy in (None, *policies)]
    accuracies = [_accuracy(file, options) for file in files]
    differ = _disagreements(files, options)
    times = measure(files, threads=options.threads, rounds=options.rounds)
    rows = [
        {
            "policy": Path(name).stem,
            "map5095": accuracy.map5095,
            "drift": None if accuracy is accuracies[0] else asdict(paired_drift(accuracies[0], accuracy)),
            "disagreement": differing,
            **{**time.summary(), "path": time.path.name},
        }
        for name, accuracy, differing, time in zip(("float", *policies), accuracies, differ, times, strict=True)
    ]
    return {"versions": versions(), "images": accuracies[0].images, "rows": rows}


def _disagreements(files: Sequence[Path], options: argparse.Namespace) -> list[float]:
    """Of each file with the first, see ``fxqat.evaluation.disagreement``."""
    found = images.image_paths(options.data, split="val", limit=options.compare)
    models = [from_onnx(file, threads=options.threads) for file in files]
    parts: list[list[tuple[float, float]]] = [[] for _ in files]
    for image in images.batches(found, options.imgsz, 1):
        first = confident(models[0].final[0], models[0](image))
        for part, model in zip(parts, models, strict=True):
            part.append(disagreement(first, model(image)))
    return [ratio(part) for part in parts]


def _made(policy: str | None, work: Path, options: argparse.Namespace) -> Path:
    path = work / f"{Path(policy).stem if policy else 'float'}.onnx"
    if path.is_file():
        return path
    model = fxqat.load(options.weights)
    if policy:
        model = fxqat.calibrate(fxqat.prepare(model, policy)[0], options.calibration, imgsz=options.imgsz)
    print(f"made {path.name}", flush=True)
    return fxqat.export(model, path, imgsz=options.imgsz)


def _accuracy(file: Path, options: argparse.Namespace) -> Accuracy:
    """From beside the file where it has been measured, without the matches of a class or the images that were left
    out, which no table here shows."""
    kept = file.with_suffix(".npz")
    if not kept.is_file():
        found = evaluate(from_onnx(file), options.data, imgsz=options.imgsz)
        write(found, kept)
        print(f"{file.stem}: {found.map5095:.4f}", flush=True)
    return read(kept)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ("policy", "mAP50-95", "against float, points [95 %]", "disagrees with float", "ms", "speed [95 %]", "MB")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        drift = row["drift"]
        change = f"{drift['points']:+.2f} [{drift['low']:+.2f}, {drift['high']:+.2f}]" if drift else ""
        speed = f"{row['speed']:.2f}x [{row['speed_low']:.2f}, {row['speed_high']:.2f}]"
        figures = (f"{100 * row['disagreement']:.2f} %", f"{row['median']:.1f}", speed, f"{row['size']:.2f}")
        cells = (row["policy"], f"{row['map5095']:.4f}", change, *figures)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    made = parser("search", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--calibration", required=True, metavar="D", help="images to calibrate on")
    made.add_argument("--data", required=True, metavar="V", help="data set YAML to evaluate on")
    made.add_argument("--policy", action="append", default=[], metavar="P", help="a found policy; may be given again")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument(
        "--compare", type=int, default=64, metavar="N", help="images to compare predictions on (default: %(default)s)"
    )
    made.add_argument("--work", required=True, metavar="DIR", help="folder for files and accuracies")
    return made


if __name__ == "__main__":
    sys.exit(main())
