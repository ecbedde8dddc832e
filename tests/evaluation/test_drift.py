"""Drift between detectors whose differences are known, the float twin of a quantized one, and memory by process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from detectors import NAMES, find_colours, shifted, write_onnx

import fxqat
from fxqat.cli import main
from fxqat.errors import Problem
from fxqat.evaluation import drift_report
from fxqat.evaluation.drift import Stage, by_class, drift
from fxqat.evaluation.drift_report import read
from fxqat.evaluation.float_export import export_float
from fxqat.evaluation.memory import Memory, memory
from fxqat.evaluation.predictor import Predictor
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.passes.selective import asleep
from fxqat.search.op_costs import convolutions, profile
from fxqat.targets import ORT_CPU

THRESHOLD = 0.5
# a network of few sites: the command line is asked here, and an export takes its time by the site
SMALL = """
nc: 3
scales: {n: [1.0, 0.25, 1024]}
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C2f, [64, True]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""


def fainter(images: torch.Tensor) -> torch.Tensor:
    output = find_colours(images)
    output[:, 4:] *= 0.4
    return output


@pytest.fixture(scope="module")
def rows(tiny_data: Path) -> list[Stage]:
    ways = {"first": find_colours, "same": find_colours, "fainter": fainter, "moved": shifted(6.0)}
    found = [Predictor(name=name, predict=predict, names=NAMES) for name, predict in ways.items()]
    return drift(found, tiny_data, threshold=THRESHOLD, imgsz=96, batch=5)


@pytest.fixture(scope="module")
def twin(calibrated: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_float(calibrated, tmp_path_factory.mktemp("twin") / "float.onnx", imgsz=64)


def test_the_first_is_what_the_others_are_compared_with(rows):
    first, same = rows[0], rows[1]
    assert (first.drift, first.shift, first.recall.points) == (None, None, None)
    assert same.drift is not None
    assert (same.drift.points, same.drift.low, same.drift.high) == (0, 0, 0)
    assert (same.shift.mean, same.shift.lost, same.recall.points) == (0, 0, 0)
    assert same.shift.predictions > 10


def test_the_score_shift_is_that_of_the_same_predictions(rows, tiny_data):
    first, shift = rows[0], rows[2].shift
    confident = np.concatenate([match.conf[match.conf >= THRESHOLD] for match in first.accuracy.matches])
    # one anchor a class and image: nothing is suppressed, so detections are predictions; float32 scores
    assert shift.predictions == len(confident)
    assert shift.mean == pytest.approx(-0.6 * confident.mean(), abs=1e-6)
    assert shift.lost == pytest.approx((0.4 * confident < THRESHOLD).mean())
    assert shift.low <= shift.mean <= shift.high


def test_recall_at_a_threshold_counts_labels(rows):
    for row in rows:
        right = sum(int(match.tp[match.conf >= THRESHOLD, 0].sum()) for match in row.accuracy.matches)
        labels = sum(len(match.target_cls) for match in row.accuracy.matches)
        assert row.recall.recall == pytest.approx(right / labels)
    base, faint = rows[0].recall, rows[2].recall
    assert faint.points == pytest.approx(100 * (faint.recall - base.recall))
    assert faint.low <= faint.points <= faint.high < 0
    assert rows[2].drift.points == pytest.approx(0, abs=1e-9)  # mAP sees the order alone, recall the threshold


def test_classes_are_sorted_by_their_loss(rows):
    classes = by_class(rows[0].accuracy, rows[3].accuracy)
    assert [row[3] for row in classes] == sorted(row[3] for row in classes)
    assert {row[0] for row in classes} == set(NAMES.values())
    name, boxes, before, change = classes[0]
    after = next(item for item in rows[3].accuracy.classes if item.name == name)
    assert (boxes, change) == (after.boxes, pytest.approx(100 * (after.ap - before)))
    json.dumps([row.summary() for row in rows], allow_nan=False)


def test_a_threshold_is_a_confidence(tiny_data):
    with pytest.raises(Problem, match=r"--threshold: 1\.5; expected a confidence between 0 and 1"):
        drift([], tiny_data, threshold=1.5)


def test_the_float_twin_computes_what_the_network_does_asleep(twin, calibrated, images):
    session = ort.InferenceSession(str(twin), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images[:1].numpy()})
    with asleep(calibrated.gm), torch.no_grad():
        wanted = calibrated.gm(images[:1])[0].numpy()
    # boxes reach 64 pixels, and 60 layers of float32 differ in the order of sums: 1e-3 is 2**-16 of that
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert calibrated.stage == "qat"


def test_costs_name_every_convolution(twin, yolov8n):
    lowered = fxqat.passes.converting(fxqat.passes.Rules.load(), ORT_CPU)
    floats = fxqat.passes.preparing(fxqat.Policy.load("float"), fxqat.passes.Rules.load())
    layers = convolutions(lowered.run(floats.run(yolov8n.gm)[0])[0])
    assert len(layers) == 63
    costs = profile(twin, layers, threads=1)
    assert set(layers) <= set(costs.sites)
    assert costs.elements["model.0.conv"] == 16 * 32 * 32
    assert costs.total == pytest.approx(sum(costs.sites.values()))
    assert min(costs.sites.values()) >= 0
    with pytest.raises(Problem, match=r"has 63 convolutions; expected 62, as the model has"):
        profile(twin, layers[1:])


def test_memory_of_each_file_in_its_own_process(tmp_path, calibrated):
    (found,) = memory([write_onnx(tmp_path / "a.onnx", batch=1, imgsz=64)])
    assert found.file == pytest.approx((tmp_path / "a.onnx").stat().st_size / 1e6)
    assert 20 < found.peak < 500  # Python and ONNX Runtime, and nothing of this process
    (torchs,) = memory([fxqat.save(calibrated, tmp_path / "a.fxqat")], imgsz=64)
    assert torchs.peak > 2 * found.peak  # torch and Ultralytics are loaded for it
    with pytest.raises(Problem, match=r"none\.fxqat: no such file"):
        memory([tmp_path / "none.fxqat"])
    (tmp_path / "bad.fxqat").write_text("x")
    with pytest.raises(Problem, match=r"bad\.fxqat"):
        memory([tmp_path / "bad.fxqat"], imgsz=64)


def no_processes(paths: Sequence[Path], *, imgsz: int) -> list[Memory]:
    """``memory`` without a process for each file, which the test above starts."""
    assert imgsz == ImageSize.of(64)
    return [Memory(name=path.name, file=path.stat().st_size / 1e6, peak=1.0) for path in map(Path, paths)]


def test_drift_and_search_on_the_command_line(
    tmp_path: Path,
    tiny_data: Path,
    images: torch.Tensor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    twin: Path,
) -> None:
    monkeypatch.setattr(drift_report, "memory", no_processes)
    monkeypatch.setattr(drift_report, "export_float", lambda model, path, *, imgsz: shutil.copy(twin, path))
    (tmp_path / "small.yaml").write_text(SMALL)
    plain = fxqat.save(fxqat.load(tmp_path / "small.yaml"), tmp_path / "tiny.fxqat")
    model = fxqat.calibrate(fxqat.prepare(plain, "w8a8")[0], [images])
    fxqat.save(model, tmp_path / "tiny_ptq.fxqat")
    words = ["--data", str(tiny_data), "--imgsz", "64", "-q"]
    asked = ["--float", str(plain), "--memory", "--images", "4", "--json", str(tmp_path / "drift.json")]
    assert main(["drift", str(tmp_path / "tiny_ptq.fxqat"), *words, *asked]) == 0
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines()[1:6]] == [
        *("float", "fused", "fake-quant", "reference", "ONNX Runtime"),
    ]
    summary = read(tmp_path / "drift.json", tmp_path / "tiny_ptq.fxqat")
    assert [row["stage"] for row in summary["stages"]] == [line.split("  ")[0] for line in out.splitlines()[1:6]]
    assert [row["name"] for row in summary["memory"]] == [
        *("tiny.fxqat", "tiny_ptq.fxqat", "float.onnx", "runtime.onnx"),
    ]
    found = tmp_path / "found.yaml"
    asked = ["--images", "4", "--probe-images", "2", "--candidates", "1"]
    asked += ["--work", str(tmp_path / "work"), "-o", str(found)]
    assert main(["search", str(plain), *words, *asked, "--json", str(tmp_path / "search.json")]) == 0
    out = capsys.readouterr().out
    assert "the drop is within the budget of 0.2 points" in out
    summary = json.loads((tmp_path / "search.json").read_text())
    assert summary["within"] is True
    assert summary["candidates"][0]["left"] == []
    assert all(one["milliseconds"] > 0 for one in summary["candidates"])
    fxqat.prepare(plain, found)
