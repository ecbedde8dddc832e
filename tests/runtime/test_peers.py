"""bench.peers: what is made and measured is kept, and a tool that is missing or fails is told in the table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench import peers
from bench.peer_makers import PEERS, Peer
from fxqat.evaluation.accuracy_file import write


def row(name: str, **facts: object) -> dict[str, object]:
    made = {"bytes": 3_500_000, "share": 0.27, "seconds": 61.0, "peak_mb": 900.0, "latency": {}}
    return {"name": name, "title": name, "runtime": "onnxruntime", **made, **facts}


def test_the_table_tells_what_is_missing():
    drift = {"points": -0.12, "low": -0.3, "high": 0.05}
    timing = {"onnxruntime": {"speed": 2.25, "median": 17.04}, "litert_1": {"speed": 1.5, "median": 99.5}}
    lines = peers._markdown(
        [row("a", map5095=0.3547, drift=drift, latency=timing), {"title": "b", "failed": "nncf is not installed"}]
    ).splitlines()
    speeds = "2.25x (17.0 ms) |  | 1.50x (99.5 ms) |  |"
    assert lines[2] == f"| a | 0.3547 | -0.12 [-0.30, +0.05] | ORT | {speeds} 3.50 | 27% | 61 s | 900 MB |"
    assert lines[3].startswith("| b | nncf is not installed |")
    assert {line.count("|") for line in lines} == {13}


def test_names_are_checked(capsys):
    common = ["--weights", "w", "--calibration", "c", "--data", "d", "--work", "f"]
    assert peers.main([*common, "--peer", "ncnf"]) == 2
    assert "--peer: unknown tool 'ncnf'; expected one of: ultralytics_fp32, " in capsys.readouterr().err
    assert peers.main([*common, "--only", "mak"]) == 2
    assert "--only: unknown step 'mak'; expected of: make, accuracy, latency" in capsys.readouterr().err


def test_a_missing_package_is_no_end(tmp_path, monkeypatch, capsys):
    missing = Peer(name="none", title="None", make=lambda job: job.folder, package="no_such_package_anywhere")
    monkeypatch.setattr(peers, "PEERS", (PEERS[0], missing))
    common = ["--weights", "w", "--calibration", "c", "--data", "d", "--work", str(tmp_path), "--only", "make"]
    assert peers.main([*common, "--peer", "none"]) == 0
    out = capsys.readouterr().out
    assert "| None | no_such_package_anywhere is not installed |" in out
    assert "| Ultralytics ONNX FP32 | not made yet |" in out
    assert (tmp_path / "peers.png").is_file()
    assert json.loads((tmp_path / "peers.json").read_text())[1]["failed"] == "no_such_package_anywhere is not installed"


@pytest.mark.parametrize(
    ("code", "stderr", "says"),
    [
        (-9, "WARNING: consider", "killed by signal 9 (out of memory?)"),
        (-11, "", "killed by signal 11"),
        (1, "Traceback\nValueError: no\n", "ValueError: no"),
        (3, "", "ended with 3"),
    ],
)
def test_a_tool_that_ends_without_a_file_says_how(code, stderr, says):
    assert peers._end(subprocess.CompletedProcess([], code, "", stderr)) == says


@pytest.fixture
def accuracy(tiny_data):
    from fxqat.evaluation.accuracy import Accuracy, Matches

    matches = tuple(
        Matches(
            image=Path(f"{index}.png"),
            tp=np.eye(3, 10, dtype=bool),
            conf=np.linspace(0.9, 0.1, 3),
            pred_cls=np.zeros(3),
            target_cls=np.zeros(2),
        )
        for index in range(4)
    )
    figures = {"map5095": 0.4, "map50": 0.5, "precision": 0.6, "recall": 0.7, "images": 4, "boxes": 8}
    return Accuracy(model="m", classes=(), matches=matches, skipped=(), **figures)


def test_accuracy_is_kept_whole(accuracy, tmp_path):
    assert peers._kept(tmp_path) is None
    write(accuracy, tmp_path / peers.ACCURACY)
    kept = peers._kept(tmp_path)
    assert (kept.model, kept.map5095, kept.images) == ("m", 0.4, 4)
    for mine, its in zip(accuracy.matches, kept.matches, strict=True):
        assert mine.image == its.image
        for key in ("tp", "conf", "pred_cls", "target_cls"):
            assert np.array_equal(getattr(mine, key), getattr(its, key))
