"""What every test shares: Ultralytics offline and away from the home folder, the real data, a tiny data set."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

from fxqat.models.environment import environment

_CONFIG = Path(tempfile.mkdtemp(prefix="fxqat-tests-"))
atexit.register(shutil.rmtree, _CONFIG, ignore_errors=True)
os.environ.update(environment(_CONFIG))
os.environ["MPLBACKEND"] = "Agg"

from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from alive import alive  # noqa: E402
from hypothesis import settings  # noqa: E402
from shared_exports import kept, one_registry  # noqa: E402
from tiny import write_data  # noqa: E402
from torch import nn  # noqa: E402

import fxqat  # noqa: E402
from fxqat.commands import progress_lines  # noqa: E402
from fxqat.evaluation import comparison, drift_report  # noqa: E402
from fxqat.evaluation.latency import Latency, measure  # noqa: E402
from fxqat.models.detector import Detector  # noqa: E402
from fxqat.report import collect  # noqa: E402
from fxqat.runtime.onnx import onnx_export  # noqa: E402

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # processes of two threads each would wait for one another

settings.register_profile("shared machine", deadline=None)  # other work on the same cores is no failure
settings.load_profile("shared machine")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="write the goldens anew instead of comparing with them")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported: it lives as long as the process, and each of the
    collector's rounds would walk through all of torch again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], str]:
    """``golden(name, text)`` is what ``tests/golden/NAME.txt`` holds; ``pytest --accept`` writes ``text`` there."""

    def read(name: str, text: str) -> str:
        path = REPOSITORY / "tests" / "golden" / f"{name}.txt"
        if request.config.getoption("--accept"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"no golden {path.name}: run pytest --accept and read what it writes"
        return path.read_text()

    return read


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def shared_exports(run_folder: Path) -> Iterator[None]:
    """Let torch.onnx run once for each network, in all processes of the run together."""
    folder = run_folder / "exports"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_export, "_exported", kept(onnx_export._exported, folder))
        one_registry(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_progress_lines() -> Iterator[None]:
    """No lines on progress: whether they come depends on how busy the machine is, and tests compare what is said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_lines, "PACE", progress_lines.Pace(silent=1e6, every=1e6))
        yield


@pytest.fixture
def quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency from one run of each model, where the test is not about what it is."""

    def once(paths: Sequence[str | Path], **options: Any) -> list[Latency]:
        return measure(paths, **{**options, "rounds": 1, "runs": 1, "warmup": 0})

    monkeypatch.setattr(collect, "measure", once)
    monkeypatch.setattr(comparison, "measure", once)
    monkeypatch.setattr(drift_report, "measure_latency", once)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Four images (4, 3, 64, 64) in 0..1: smooth shades with noise on top."""
    generator = torch.Generator().manual_seed(7)
    shades = nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=generator), size=64, mode="bilinear")
    return (0.8 * shades + 0.2 * torch.rand(4, 3, 64, 64, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="session")
def yolov8n(images: torch.Tensor) -> Detector:
    """YOLOv8n with random weights, float; read only. Its batch norms know the statistics of ``images``: with those of a
    fresh model the signal fades to 1e-12 along 60 layers, and everything would seem equal."""
    return alive(fxqat.load("yolov8n.yaml"), images)


@pytest.fixture(scope="session")
def prepared(yolov8n: Detector) -> Detector:
    """``yolov8n`` under w8a8, not calibrated; read only."""
    return fxqat.prepare(yolov8n, "w8a8")[0]


@pytest.fixture(scope="session")
def calibrated(yolov8n: Detector, images: torch.Tensor) -> Detector:
    """``yolov8n`` under w8a8, calibrated on ``images``; read only."""
    return fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images])


@pytest.fixture(scope="session")
def converted(calibrated: Detector) -> Detector:
    """``calibrated`` as the INT8 reference graph; read only."""
    return fxqat.convert(calibrated)[0]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real weights and images; tests that need it are skipped without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "weights" / "yolov8n.pt").is_file():
        pytest.skip(f"no real data at {folder}: weights/, coco128/ and coco-val/ are needed")
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set YAML: 12 train and 12 val PNG images of grey noise with red, green and blue rectangles, 3 classes."""
    return write_data(tmp_path_factory.mktemp("tiny"), "detect", count=12)


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``task_data(task)``: the same for any task of Ultralytics', 6 images a split; of a classifier a folder."""
    made: dict[str, Path] = {}

    def of(task: str) -> Path:
        if task not in made:
            made[task] = write_data(tmp_path_factory.mktemp(task), task)
        return made[task]

    return of
