"""Latency: one process a model, interleaved rounds, honest ratios and memory, one-line errors."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from detectors import write_onnx
from hypothesis import given
from hypothesis import strategies as st

from bench.latency import main
from fxqat.errors import Problem
from fxqat.evaluation import latency
from fxqat.evaluation.latency import measure, ratio, table

QUICK = {"threads": 1, "rounds": 4, "runs": 3, "warmup": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> Path:
    """The same detector behind 60 more passes over the image: many times the work."""
    path = write_onnx(tmp_path_factory.mktemp("onnx") / "heavy.onnx", batch=1, imgsz=320)
    network = onnx.load(path)
    names = ["images", *(f"pass{index}" for index in range(60))]
    extra = [onnx.helper.make_node("Sin", [a], [b]) for a, b in pairwise(names)]
    network.graph.node[0].input[0] = names[-1]
    rest = list(network.graph.node)
    del network.graph.node[:]
    network.graph.node.extend([*extra, *rest])
    onnx.save(network, path)
    return path


def test_a_model_is_compared_with_the_first(model, heavy):
    light, slow = measure([model, heavy], **QUICK, imgsz=320)
    assert (light.speed, light.speed_low, light.speed_high) == (1.0, 1.0, 1.0)
    assert slow.speed_low <= slow.speed <= slow.speed_high < 0.5
    assert slow.median > 2 * light.median
    for item in (light, slow):
        assert 0 < item.p10 <= item.median <= item.p90
        assert item.runs == 12
        assert item.shape == (1, 3, 320, 320)
        assert item.size == pytest.approx(item.path.stat().st_size / 1e6)


def test_memory_is_the_workers_own_not_the_parents(model):
    """ru_maxrss would report at least this test process, which holds torch."""
    ballast = np.ones(40_000_000)  # 320 MB in the parent
    (item,) = measure([model], **QUICK, imgsz=64)
    assert 20 < item.rss < 250, ballast[0]


def test_turns_alternate_and_each_model_has_its_own_process(model, monkeypatch):
    turns: list[int] = []
    run = latency.Worker.run
    monkeypatch.setattr(latency.Worker, "run", lambda self, runs: (turns.append(self.process.pid), run(self, runs))[1])
    rounds: list[tuple[int, int]] = []
    measure([model, model], **QUICK, imgsz=32, progress=lambda *n: rounds.append(n))
    first, second = turns[:2]  # the warm-up
    assert first != second
    assert os.getpid() not in turns
    assert turns[2:] == [first, second, second, first, first, second, second, first]
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_process_is_left_behind(model, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"junk")
    with pytest.raises(Problem):
        measure([model, bad], **QUICK, imgsz=32)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30))
def test_the_ratio_lies_in_its_interval_and_among_the_rounds(rounds):
    middle, low, high = ratio(np.array(rounds))
    assert min(rounds) <= low <= middle <= high <= max(rounds)


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    """200 experiments of 20 rounds with 5 % noise around 2: a 95 % interval may miss up to 20 of them (p < 1e-3)."""
    generator = np.random.default_rng(0)
    intervals = [ratio(2 * generator.lognormal(0, 0.05, 20))[1:] for _ in range(200)]
    assert sum(not low <= 2 <= high for low, high in intervals) <= 20


def test_table_is_plain_text(model):
    lines = table(measure([model], **QUICK, imgsz=32)).splitlines()
    assert lines[0].split() == [
        "model",
        "median",
        "ms",
        "p10",
        "p90",
        "speed",
        "95",
        "%",
        "interval",
        "peak",
        "MB",
        "file",
        "MB",
    ]
    assert re.fullmatch(r"tiny\.onnx +\d+\.\d +\d+\.\d +\d+\.\d  1\.00x +1\.00\.\.1\.00 +\d+ +0\.0", lines[1])


class TestProblems:
    def test_missing(self, tmp_path):
        line = r"^.*gone\.onnx: no such file; expected an exported model; make it with fxqat export$"
        with pytest.raises(Problem, match=line):
            measure([tmp_path / "gone.onnx"])

    def test_junk(self, tmp_path):
        (tmp_path / "junk.onnx").write_bytes(b"junk")
        with pytest.raises(Problem, match=r"^.*junk\.onnx: cannot be run: .*Protobuf.*$"):
            measure([tmp_path / "junk.onnx"], **QUICK)

    def test_another_size(self, heavy):
        with pytest.raises(Problem, match=r"^.*: cannot be run: takes images of \[320, 320\], not \[64, 64\]$"):
            measure([heavy], **QUICK, imgsz=64)

    def test_nothing_to_do(self, model):
        says = "threads 2, rounds 0, runs 5, warmup 5: cannot be measured; expected 1 or more of each, and no negative"
        with pytest.raises(Problem, match=f"^{says} warmup$"):
            measure([model], rounds=0)

    @pytest.mark.parametrize(
        ("dying", "says"),
        [
            ("raise SystemExit(7)", r"7; is memory short\?"),
            ("raise ImportError('no runtime')", "1; ImportError: no runtime"),
        ],
    )
    def test_a_worker_that_dies(self, model, tmp_path, dying, says):
        script = tmp_path / "worker.py"
        script.write_text(f"print('{{\"shape\": [1]}}', flush=True)\n{dying}\n")
        with pytest.raises(Problem, match=rf"^.*tiny\.onnx: its process died with code {says}$"):
            measure([model], **QUICK, worker=script)


class TestCommand:
    def test_prints_and_writes(self, model, tmp_path, capsys):
        file = tmp_path / "out.json"
        arguments = ["--threads", "1", "--rounds", "2", "--runs", "2", "--imgsz", "32", "--json", str(file)]
        assert main([str(model), str(model), *arguments]) == 0
        assert capsys.readouterr().out.count("tiny.onnx") == 2
        written = json.loads(file.read_text())
        assert written["rounds"] == 2
        assert [item["path"] for item in written["models"]] == [str(model)] * 2

    def test_a_problem_is_one_line_and_code_2(self, model, tmp_path, capsys):
        assert main([str(tmp_path / "gone.onnx")]) == 2
        assert main([str(model), "--json", str(tmp_path / "no" / "out.json")]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 2
