"""The tools that `make check` runs, as tests: what one person's editor accepts is what everybody's does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ["fxqat", "patterns", "bench", "tests", "docs/hooks"]


@pytest.mark.parametrize("tool", [["ruff", "check", *SOURCES], ["ruff", "format", "--check", *SOURCES], ["mypy"]])
def test_the_checkers_have_nothing_to_say(tool):
    done = subprocess.run([sys.executable, "-m", *tool], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_files_hold_one_thing():
    sources = [file for room in ("fxqat", "patterns", "bench") for file in (REPOSITORY / room).rglob("*.py")]
    assert [f"{file.relative_to(REPOSITORY)}: {lines(file)}" for file in sources if lines(file) > 350] == []
