"""The main job on the shipped detector and drawn signs: accuracy kept, and the file is the reference graph. The
demo's command runs whole, on fewer pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

import fxqat
import fxqat.demo
from fxqat.demo import make_dataset
from fxqat.evaluation.accuracy import evaluate
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.comparison import open_model

WEIGHTS = Path(fxqat.demo.__file__).with_name("signs_yolov8n.pt")
IMGSZ = 320


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("signs") / "data", images=240, seed=0)


@pytest.fixture(scope="module")
def calibrated(data: Path) -> fxqat.api.Detector:
    qat, _ = fxqat.prepare(fxqat.load(WEIGHTS), "critical")
    return fxqat.calibrate(qat, data.parent / "images" / "calibration", imgsz=IMGSZ)


@pytest.fixture(scope="module")
def exported(calibrated: fxqat.api.Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fxqat.export(calibrated, tmp_path_factory.mktemp("out") / "signs_int8.onnx", imgsz=IMGSZ)


def test_int8_in_the_runtime_is_within_a_point_of_float(exported: Path, data: Path) -> None:
    both = [evaluate(open_model(model), data, imgsz=IMGSZ) for model in (WEIGHTS, exported)]
    assert both[0].map5095 > 0.6
    # 60 images: the paired difference has a standard deviation of about 0.4 points over images, and they are fixed.
    assert abs(paired_drift(both[0], both[1]).points) <= 1.0


def test_the_file_computes_the_reference_graph(calibrated: fxqat.api.Detector, exported: Path, data: Path) -> None:
    images = data.parent / "images" / "val"
    found = fxqat.verify(calibrated, exported, images, images_limit=3, imgsz=IMGSZ).total("reference_runtime")
    assert found.codes > 30_000_000
    assert found.differing == 0
