"""A real report: the shipped detector of drawn signs, calibrated, exported and looked at as a user would."""

from __future__ import annotations

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
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/data.yaml, signs_ptq.fxqat and signs_int8.onnx."""
    folder = tmp_path_factory.mktemp("signs")
    data = fxqat.demo.make_dataset(folder / "data", images=20)
    weights = Path(fxqat.demo.__file__).with_name("signs_yolov8n.pt")
    qat, _ = fxqat.prepare(fxqat.load(weights), "critical")
    calibrated = fxqat.calibrate(qat, data.parent / "images" / "calibration", images_limit=2, imgsz=SIZE)
    fxqat.save(calibrated, folder / "signs_ptq.fxqat")
    fxqat.export(calibrated, folder / "signs_int8.onnx", imgsz=SIZE)
    return folder


@pytest.fixture(scope="session")
def page(signs: Path) -> str:
    """The report on them, as a user has it written."""
    out, drift = signs / "report.html", signs / "drift.json"
    drift.write_text(json.dumps(record_of(signs / "signs_ptq.fxqat")))
    words = ["--data", str(signs / "data" / "data.yaml"), "--onnx", str(signs / "signs_int8.onnx")]
    words += ["--drift", str(drift), "--json", str(signs / "report.json")]
    few = ["--images", "2", "--pictures", "2", "--val", "4", "-q"]
    assert main(["report", str(signs / "signs_ptq.fxqat"), *words, *few, "-o", str(out)]) == 0
    return out.read_text(encoding="utf-8")
