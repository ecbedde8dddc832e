"""A real report: the shipped detector of drawn signs, calibrated, exported and looked at as a user would."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from records import record_of

import fxqat
import fxqat.demo
from fxqat.cli import main

SIZE = 320


@pytest.fixture(scope="session")
def signs(run_folder: Path) -> Path:
    """A folder with data/data.yaml, signs_ptq.fxqat, signs_int8.onnx and the report on them, report.html and .json; the
    first process of a run makes it, and the others wait for it."""
    folder = run_folder / "signs"
    with (run_folder / "signs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "report.html").exists():
            write_report(folder)
    return folder


@pytest.fixture(scope="session")
def page(signs: Path) -> str:
    """The report, as a user has it written."""
    return (signs / "report.html").read_text(encoding="utf-8")


def write_report(folder: Path) -> None:
    data = fxqat.demo.make_dataset(folder / "data", images=20)
    weights = Path(fxqat.demo.__file__).with_name("signs_yolov8n.pt")
    qat, _ = fxqat.prepare(fxqat.load(weights), "critical")
    calibrated = fxqat.calibrate(qat, data.parent / "images" / "calibration", images_limit=2, imgsz=SIZE)
    model, runtime, drift = (folder / name for name in ("signs_ptq.fxqat", "signs_int8.onnx", "drift.json"))
    fxqat.save(calibrated, model)
    fxqat.export(calibrated, runtime, imgsz=SIZE)
    drift.write_text(json.dumps(record_of(model)))
    words = ["--data", str(data), "--onnx", str(runtime), "--drift", str(drift), "--json", str(folder / "report.json")]
    few = ["--images", "2", "--pictures", "2", "--val", "4", "-q"]
    assert main(["report", str(model), *words, *few, "-o", str(folder / "report.html")]) == 0
