"""The commands of fxqat/commands/analyzing.py as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from commands import refused, said
from small_networks import write

import fxqat
from fxqat.sensitivity.error_report import analyze

SIZE = ["--imgsz", "64", "-q"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, images: torch.Tensor) -> Path:
    """A folder with tiny.pt's stand-in: a calibrated detector of three classes, tiny.fxqat."""
    folder = tmp_path_factory.mktemp("analyzing")
    model = fxqat.prepare(fxqat.load("yolov8n.yaml", classes=3), "w8a8")[0]
    fxqat.save(fxqat.calibrate(model, [images]), folder / "tiny.fxqat")
    return folder


def test_analyze_prints_the_worst_and_writes_all(
    three: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: str(three / f"errors.{name}") for name in ("csv", "json")}
    words = ["--data", str(tiny_data), "--images", "2", "--rows", "5", "--by", "accumulated_sqnr", *SIZE]
    wrote = ["--csv", files["csv"], "--json", files["json"], "--plots", str(three / "plots")]
    out = said(capsys, "analyze", str(three / "tiny.fxqat"), *words, *wrote).splitlines()
    assert out[0].split() == ["site", "share", "alone", "SQNR", "weight", "accumulated", "clipped", "used", "codes"]
    accumulated = [float(line.split()[-6]) for line in out[1:6]]
    assert accumulated == sorted(accumulated)
    assert out[6].startswith("2 images, 184 quantized tensors; 179 more with --rows 0")
    assert len(list(csv.DictReader(Path(files["csv"]).read_text().splitlines()))) == 184
    assert len(json.loads(Path(files["json"]).read_text())["sites"]) == 184
    pictures = [(three / "plots" / f"{name}.png").read_bytes()[:4] for name in ("depth", "share", "ranges")]
    assert pictures == [b"\x89PNG"] * 3


def test_analyze_refuses_in_one_line(three: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, data = str(three / "tiny.fxqat"), ["--data", str(tiny_data)]
    assert "did you mean 'sqnr'?" in refused(capsys, "analyze", tiny, *data, "--by", "snqr")
    assert "stage float" in refused(capsys, "analyze", "yolov8n.yaml", *data, *SIZE)
    assert "--probes: 0; expected 1 or more" in refused(capsys, "analyze", tiny, *data, "--probes", "0")
    words = ["--images", "1", "--probes", "1", *SIZE]
    assert "model.99.*: covers no site" in refused(capsys, "analyze", tiny, "model.99.*", *data, *words)


def test_a_model_that_quantizes_nothing_is_refused_in_one_line(
    tmp_path: Path, tiny_data: Path, images: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fxqat.prepare(fxqat.load(write(tmp_path, "yolov8n")), "float")[0]
    model = fxqat.calibrate(model, [images[:1]])
    found = analyze(model, [images[:1]], probes=1)  # for a report, which shows such a model, too
    assert not any(row.quantized for row in found.rows)
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["output"]["divergence"] == 0
    fxqat.save(model, tmp_path / "float.fxqat")
    for command in ("analyze", "sensitivity", "verify"):
        line = refused(capsys, command, str(tmp_path / "float.fxqat"), "--data", str(tiny_data), *SIZE)
        assert f"quantizes nothing (policy float.yaml); expected a model with quantizers for {command}; prepare" in line


def test_sensitivity_ranks_checks_and_goes_on(three: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, found = three / "work", three / "sensitivity.json"
    words = ["sensitivity", str(three / "tiny.fxqat"), "--data", str(tiny_data), "--images", "2", *SIZE]
    words += ["--rows", "3", "--check", "2", "--work", str(work), "--json", str(found)]
    out = said(capsys, *words).splitlines()
    assert out[0].split() == ["site", "alone,", "millinats", "share", "left", "out", "share"]
    harms = [float(line.split()[1]) for line in out[1:4]]
    assert harms == sorted(harms, reverse=True)
    assert "2 images; everything quantized:" in out[4]
    ways = ("output", "mAP", "disagreement")
    head = "checked site  probe, millinats  output, millinats  mAP, points  disagreement, %"
    assert out[6].split() == head.split()
    assert [line.split(":")[0] for line in out[9:]] == [
        f"rank correlation of probe with {way} on 2 sites (Spearman)" for way in ways
    ]
    check = json.loads(found.read_text())["check"]
    assert [line.split()[0] for line in out[7:9]] == check["sites"]
    assert {f"spearman_{way}" for way in ways} | {*ways} <= set(check)
    assert all(0 <= one <= 1 for one in check["disagreement"])  # random weights are sure of nothing
    before = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    assert len(before) == 3
    assert said(capsys, *words).splitlines() == out
    assert before == {path: path.stat().st_mtime_ns for path in work.iterdir()}


def test_sensitivity_refuses_in_one_line(three: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, data = (
        ["sensitivity", str(three / "tiny.fxqat")],
        ["--data", str(tiny_data), "--work", str(three / "w"), *SIZE],
    )
    assert "did you mean 'probe'?" in refused(capsys, *tiny, *data, "--by", "prob")
    assert "carries its policy; leave out --policy" in refused(capsys, *tiny, *data, "--policy", "float")
    assert "has no policy; give --policy" in refused(capsys, "sensitivity", "yolov8n.yaml", *data)
    assert "did you mean 'model.0.conv'?" in refused(capsys, *tiny, *data, "--only", "model.0.cnv")
    assert "expected one of: site, block" in refused(capsys, *tiny, *data, "--group", "layer")
