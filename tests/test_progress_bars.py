"""Bars of steps that count nothing: they fill by what the step lasted on this machine before."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fxqat.commands import step_rates
from fxqat.commands.progress import to_go, working

STEP = "convert"


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


def test_a_terminal_sees_the_time_to_go_and_the_rate_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what it writes to for a terminal
    step_rates.remember(STEP, 1, 50.0)
    with working("converting", False, STEP, 1):
        time.sleep(0.3)  # the bar is drawn ten times a second
    shown = capsys.readouterr().err
    assert "converting" in shown
    assert "about 50 s to go" in shown
    assert 0.3 <= step_rates.expected(STEP, 1) < 50


@pytest.mark.parametrize(("forced", "quiet"), [("1", True), ("", False)])
def test_nothing_is_drawn_into_a_file_or_where_it_is_not_wanted(
    forced: str, quiet: bool, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    with working("converting", quiet, STEP, 1):
        pass
    assert capsys.readouterr().err == ""
    assert not cache.exists()
