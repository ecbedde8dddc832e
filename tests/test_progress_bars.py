"""Bars of steps that count nothing: they fill by what the step lasted on this machine before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fxqat.commands import step_rates
from fxqat.commands.progress import progress, to_go, working

STEP = "convert"
ShownBy = Callable[[AbstractContextManager[Any]], str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of rates of a machine on which nothing has run yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fxqat" / "step_rates.json"


def test_what_a_step_lasted_is_what_is_expected_next(cache: Path) -> None:
    assert step_rates.expected(STEP, 100) == 100 * step_rates.MEASURED[STEP]
    step_rates.remember(STEP, 50, 10.0)
    assert step_rates.expected(STEP, 100) == 20.0
    assert step_rates.expected("export .onnx", 10) == 10 * step_rates.MEASURED["export .onnx"]


@pytest.mark.parametrize("content", ["", "[]", '{"convert": "soon"}', '{"convert": -1}', '{"convert": NaN}', "\xff"])
def test_a_damaged_file_is_as_good_as_none(content: str, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text(content, encoding="latin-1")
    assert step_rates.expected(STEP, 100) == 100 * step_rates.MEASURED[STEP]


def test_a_folder_that_cannot_be_written_does_no_harm(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    step_rates.remember(STEP, 50, 10.0)
    assert step_rates.expected(STEP, 100) == 100 * step_rates.MEASURED[STEP]


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.4, "about 12 s to go"), (0.4, "nearly done"), (-3.0, "nearly done")]
)
def test_the_time_to_go_is_said_in_words(seconds: float, words: str) -> None:
    assert to_go(seconds) == words


@pytest.fixture
def shown_by(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ShownBy:
    """What a context sends to a terminal that stands where stderr was, a little while after it was entered."""

    def read(context: AbstractContextManager[Any]) -> str:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        with context as step:
            if step:
                step(3, 8)
            time.sleep(0.3)  # bars are drawn ten times a second
        return capsys.readouterr().err

    return read


def test_a_terminal_sees_the_time_to_go_and_the_rate_is_kept(cache: Path, shown_by: ShownBy) -> None:
    step_rates.remember(STEP, 1, 50.0)
    shown = shown_by(working("converting", False, STEP, 1))
    assert "converting" in shown
    assert "about 50 s to go" in shown
    assert 0.3 <= step_rates.expected(STEP, 1) < 50


def test_a_terminal_sees_a_bar_with_its_count(shown_by: ShownBy) -> None:
    shown = shown_by(progress("calibrating", False))
    assert "3/8" in shown
    assert "\r" in shown


def test_nothing_is_shown_and_no_rate_is_kept_where_it_is_not_wanted(cache: Path, shown_by: ShownBy) -> None:
    assert shown_by(progress("calibrating", True)) == ""
    assert shown_by(working("converting", True, STEP, 1)) == ""
    assert not cache.exists()
