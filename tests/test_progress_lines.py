"""Lines on progress where stderr is no terminal: what they say, and when."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest

from fxqat.commands import progress_lines, step_rates
from fxqat.commands.progress import Phases, progress, working
from fxqat.commands.progress_lines import Log, Pace, PhaseLines, clock_time, phase_lines

QUICK = Pace(silent=0.05, every=0.1)


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the commands, of which the other tests see no line."""
    monkeypatch.setattr(progress_lines, "PACE", Pace(silent=5.0, every=30.0))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Log:
    return Log(io.StringIO(), clock)


class File:
    """What is sent to stderr, a file, at a pace that a test can wait for."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.text = capsys, ""

    def read(self) -> str:
        """All of it so far."""
        self.text += self.capsys.readouterr().err
        return self.text

    def wait_for(self, words: str) -> None:
        """Return when ``words`` have come: how soon a thread runs depends on how busy the machine is."""
        end = time.monotonic() + 60
        while words not in self.read():
            assert time.monotonic() < end, self.text
            time.sleep(0.01)


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> File:
    monkeypatch.setattr(progress_lines, "PACE", QUICK)
    return File(capsys)


def text(log: Log) -> str:
    return log.stream.getvalue()


def stepped(lines: PhaseLines, clock: Clock, *steps: tuple[float, int, int]) -> None:
    """Let time pass and steps be done: seconds, done, total."""
    for seconds, done, total in steps:
        clock.now += seconds
        lines.step(done, total)


def watched(lines: PhaseLines, clock: Clock, seconds: int, seconds_a_step: float, total: int) -> None:
    """Let ``seconds`` pass, one by one, with a step counted whenever it is done."""
    start = clock.now
    for second in range(1, seconds + 1):
        clock.now = start + second
        if second % seconds_a_step == 0:
            lines.step(int(second / seconds_a_step), total)
        lines.tick()


def test_a_long_phase_speaks_after_five_seconds_then_twice_a_minute_and_at_its_end(log: Log, clock: Clock) -> None:
    lines = PhaseLines("calibrating", log)
    lines.step(0, 100)
    watched(lines, clock, 100, 1, 100)
    lines.end()
    assert text(log) == (
        "calibrating: 5 of 100, 0:05 elapsed, about 1:35 to go\n"
        "calibrating: 35 of 100, 0:35 elapsed, about 1:05 to go\n"
        "calibrating: 65 of 100, 1:05 elapsed, about 0:35 to go\n"
        "calibrating: 95 of 100, 1:35 elapsed, about 0:05 to go\n"
        "calibrating: 100 of 100, done in 1:40\n"
    )


def test_a_short_phase_says_nothing(log: Log, clock: Clock) -> None:
    lines = PhaseLines("calibrating", log)
    watched(lines, clock, 4, 1, 4)
    lines.end()
    assert text(log) == ""


def test_a_phase_that_counts_nothing_tells_the_time(log: Log, clock: Clock) -> None:
    lines = PhaseLines("preparing best.pt", log)
    watched(lines, clock, 40, 1000, 1)
    lines.end()
    assert text(log) == (
        "preparing best.pt: 0:05 elapsed\npreparing best.pt: 0:35 elapsed\npreparing best.pt: done in 0:40\n"
    )


def test_one_step_alone_is_not_counted(log: Log, clock: Clock) -> None:
    lines = PhaseLines("exporting", log)
    lines.step(0, 1)
    watched(lines, clock, 6, 1000, 1)
    assert text(log) == "exporting: 0:05 elapsed\n"


def test_what_a_step_is_known_to_last_is_told_until_it_is_over(log: Log, clock: Clock) -> None:
    lines = PhaseLines("exporting best_int8.tflite", log, expected=30.0)
    watched(lines, clock, 36, 1000, 1)
    assert text(log) == (
        "exporting best_int8.tflite: 0:05 elapsed, about 0:25 to go\nexporting best_int8.tflite: 0:35 elapsed\n"
    )


def test_the_time_to_go_counts_neither_preparation_nor_what_an_earlier_run_did(log: Log, clock: Clock) -> None:
    lines = PhaseLines("training", log)
    stepped(lines, clock, (4, 500, 1000), (10, 510, 1000))  # for 4 s a model is loaded
    lines.tick()
    assert text(log) == "training: 510 of 1000, 0:14 elapsed, about 8:10 to go\n"


def test_the_first_step_alone_says_nothing_of_the_time_to_go(log: Log, clock: Clock) -> None:
    lines = PhaseLines("verifying", log)
    stepped(lines, clock, (6, 1, 4))
    lines.tick()
    assert text(log) == "verifying: 1 of 4, 0:06 elapsed\n"


def test_a_count_that_begins_again_is_timed_again(log: Log, clock: Clock) -> None:
    lines = PhaseLines("sensitivity", log)
    stepped(lines, clock, (0, 0, 10), (2, 10, 10), (0, 0, 10), (8, 2, 10))
    lines.tick()
    assert text(log) == "sensitivity: 2 of 10, 0:10 elapsed, about 0:32 to go\n"


def test_many_short_phases_are_not_silent_for_minutes(log: Log, clock: Clock) -> None:
    for number in range(1, 21):
        lines = PhaseLines(f"exporting candidate {number}", log)
        watched(lines, clock, 4, 1000, 1)
        lines.end()
    assert text(log) == "exporting candidate 8: 0:02 elapsed\nexporting candidate 15: 0:04 elapsed\n"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.9, "0:00"), (59.9, "0:59"), (60, "1:00"), (3599, "59:59"), (3723, "1:02:03")]
)
def test_times_are_read_as_on_a_clock(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown


def test_a_step_that_lasts_is_told_of_while_it_does(file: File) -> None:
    with working("converting", False):
        file.wait_for("converting: 0:00 elapsed\n")
        file.wait_for("converting: 0:01 elapsed\n")
    assert re.fullmatch(r"(converting: 0:0\d elapsed\n)+converting: done in 0:0\d\n", file.read())


def test_neither_escape_codes_nor_carriage_returns_are_written(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as services set it for their logs
    with progress("calibrating", False) as step:
        step(0, 2)
        file.wait_for("0 of 2")
        step(1, 2)
        file.wait_for("to go")
    assert re.fullmatch(r"(calibrating: [01] of 2, [ -~]+\n)+calibrating: 1 of 2, done in 0:0\d\n", file.read())


def test_a_terminal_that_cannot_draw_gets_lines(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with progress("calibrating", False):
        file.wait_for("calibrating: 0:00 elapsed\n")
    assert "\x1b" not in file.read()


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "PACE", QUICK)
    with progress("calibrating", True) as step, working("converting", True), Phases(True) as phases:
        step(1, 2)
        phases.step("timing", 1, 2)
        time.sleep(0.2)
    assert capsys.readouterr() == ("", "")


def test_a_phase_ends_when_the_next_begins(file: File, capsys: pytest.CaptureFixture[str]) -> None:
    with Phases(False) as phases:
        for what in ("profiling", "timing"):
            for done in range(3):
                phases.step(what, done, 2)
                file.wait_for(f"{what}: {done} of 2")
    ends = [line for line in file.read().splitlines() if "done" in line]
    assert [end.rpartition(" ")[0] for end in ends] == ["profiling: 2 of 2, done in", "timing: 2 of 2, done in"]
    assert capsys.readouterr().out == ""


def test_a_phase_that_fails_has_no_last_line(file: File) -> None:
    with pytest.raises(OSError, match="disk"), Phases(False) as phases:  # noqa: PT012  (what is said while it lasts)
        phases.begin("exporting")
        file.wait_for("exporting: 0:00 elapsed\n")
        raise OSError("disk")
    assert "done" not in file.read()


class Full(io.StringIO):
    """A stream that takes nothing."""

    def write(self, line: str) -> int:
        raise BrokenPipeError


def test_a_stream_without_a_reader_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "PACE", QUICK)
    worked = []
    with phase_lines("calibrating", Log(Full())):
        time.sleep(0.2)
        worked.append(True)
    assert worked == [True]


def test_no_stderr_at_all_is_as_good_as_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_lines, "PACE", QUICK)
    monkeypatch.setattr(sys, "stderr", None)
    with progress("calibrating", False) as step, working("converting", False), Phases(False) as phases:
        step(1, 2)
        phases.step("timing", 1, 2)
        time.sleep(0.2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("lasts", "kept"), [(0.0, False), (0.2, True)])
def test_the_rate_of_what_was_told_of_is_kept(
    lasts: float, kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(progress_lines, "PACE", Pace(silent=0.15, every=30.0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with working("converting", False, "convert", 1):
        time.sleep(lasts)
    assert (step_rates.expected("convert", 1) >= 0.2) is kept
