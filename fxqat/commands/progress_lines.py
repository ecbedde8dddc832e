"""Lines that say how far a command is where no bar can be drawn: in a log file, a pipe, a container."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

Step = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a line is written, in seconds.

    Attributes:
        silent: a phase that is over sooner is not mentioned.
        every: between two lines while a phase lasts.
    """

    silent: float
    every: float


PACE = Pace(silent=5.0, every=30.0)


class Log:
    """Where lines go, and when the last of them was written; several phases may share one.

    Args:
        stream: takes the lines.
        clock: seconds that only grow.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.last = clock()

    def write(self, line: str) -> None:
        """Write a line. A stream that takes no more, full or without a reader, does not end the work."""
        with suppress(OSError, ValueError):
            print(line, file=self.stream, flush=True)
        self.last = self.clock()


class PhaseLines:
    """The lines of one phase: how much is done, the time that has passed and the time to go.

    The first is due when the phase has lasted ``PACE.silent`` seconds, or when nothing was written for ``PACE.every``
    seconds by the phases before it; the next every ``PACE.every`` seconds.

    Args:
        label: what is being done.
        log: takes the lines.
        expected: seconds that a phase which counts nothing will last, where that is known.
    """

    def __init__(self, label: str, log: Log, expected: float | None = None) -> None:
        self.label, self.log, self.expected = label, log, expected
        self.began, self.told = log.clock(), False
        self.done = self.total = 0
        self.first: tuple[int, float] | None = None

    def step(self, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` steps are done."""
        if self.first is None or done < self.done:
            self.first = (done, self.log.clock())
        self.done, self.total = done, total

    def wait(self) -> float:
        """Seconds until a line is due, 0 or more."""
        due = self.log.last + PACE.every
        if not self.told:
            due = min(due, self.began + PACE.silent)
        return max(0.0, due - self.log.clock())

    def tick(self) -> None:
        """Write a line if one is due."""
        if self.wait() > 0:
            return
        self.told = True
        self.log.write(f"{self.label}: {', '.join(self._state())}")

    def end(self) -> None:
        """Write the last line of a phase that lasted ``PACE.silent`` seconds."""
        if self._elapsed >= PACE.silent:
            self.log.write(f"{self.label}: {', '.join((*self._count(), f'done in {clock_time(self._elapsed)}'))}")

    @property
    def _elapsed(self) -> float:
        return self.log.clock() - self.began

    def _state(self) -> Iterator[str]:
        yield from self._count()
        yield f"{clock_time(self._elapsed)} elapsed"
        if (left := self._to_go()) is not None:
            yield f"about {clock_time(left)} to go"

    def _count(self) -> Iterator[str]:
        if self.total > 1:  # one step alone says no more than the label
            yield f"{self.done} of {self.total}"

    def _to_go(self) -> float | None:
        """Seconds, by the mean of the steps since the first that was noted: what comes before it is preparation, or was
        done in an earlier run. None where nothing is known."""
        if self.expected is not None:
            left = self.expected - self._elapsed
            return left if left > 0 else None
        if self.first is None or self.done == self.first[0]:
            return None
        mean = (self.log.clock() - self.first[1]) / (self.done - self.first[0])
        return mean * (self.total - self.done)


@contextmanager
def phase_lines(label: str, log: Log, expected: float | None = None) -> Iterator[Step]:
    """Write the lines of a phase from a thread, since a step may take minutes; yields ``step(done, total)``.

    A phase that ends in an error has no last line: the error is it.
    """
    lines, over = PhaseLines(label, log, expected), threading.Event()

    def watch() -> None:
        while not over.wait(lines.wait()):
            lines.tick()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lines.step
    finally:
        over.set()
        thread.join()
    lines.end()


def clock_time(seconds: float) -> str:
    """``0:05``, ``12:40`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
