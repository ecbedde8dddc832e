"""Commands where little is given: no home, no TMPDIR, no compiler, no assertions, a data folder that must stay as it
is; and two at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fxqat
from bench.interruptions import COMMANDS, WAYS

REPOSITORY = Path(__file__).resolve().parents[1]
FXQAT = (sys.executable, "-O", "-m", "fxqat.cli")
BARE = {"PATH": "/nonexistent", "HOME": "/nonexistent/home", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def file(prepared, tmp_path):
    return fxqat.save(prepared, tmp_path / "n.fxqat")


def held(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def started(folder, *words):
    return subprocess.Popen(
        [*FXQAT, *words], cwd=folder, env=BARE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_at_once_without_home_tmpdir_compiler_and_assertions(file, tiny_data):
    before = held(tiny_data.parent)
    words = ("calibrate", file.name, "--data", str(tiny_data), "--images", "2", "--imgsz", "64", "-q")
    both = [started(file.parent, *words) for _ in range(2)]
    said = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert [err for _, err in said] == ["", ""]
    assert {path.name for path in file.parent.iterdir()} == {"n.fxqat", "n_ptq.fxqat"}
    assert fxqat.load(file.with_name("n_ptq.fxqat")).recipe.calibration["images"] == 2
    assert held(tiny_data.parent) == before


@pytest.mark.slow
def test_interrupted_commands_leave_nothing_half_written():
    """A sample of ``python -m bench.interruptions``."""
    names, here = ("prepare", "convert"), {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    words = (sys.executable, "-m", "bench.interruptions", "--moments", "1", "--commands", ",".join(names))
    done = subprocess.run(words, env=here, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[f"| {name}", way] for name in names for way in WAYS]
    assert set(names) <= set(COMMANDS)
    assert all(int(row[2]) + int(row[3]) == 1 for row in rows)
