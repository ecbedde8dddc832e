"""How far a command is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from fxqat.commands import progress_lines, step_rates
from fxqat.commands.progress_lines import Log, Step, phase_lines

if TYPE_CHECKING:
    from rich.console import Console

_NEARLY = 0.98  # how full a bar gets that fills by the clock


@contextmanager
def progress(label: str, quiet: bool, log: Log | None = None) -> Iterator[Step]:
    """A bar with count, elapsed and remaining time where stderr is a terminal, lines with the same where it is none;
    yields ``step(done, total)``.

    Args:
        label: what is being done.
        quiet: show nothing.
        log: shared with the phases before, for lines.
    """
    if quiet or sys.stderr is None:  # closed by the shell (2>&-)
        yield lambda done, total: None
    elif console := _terminal():
        with _bar(label, console) as step:
            yield step
    else:
        with phase_lines(label, log or Log(sys.stderr)) as step:
            yield step


@contextmanager
def working(label: str, quiet: bool, step: str = "", nodes: int = 0) -> Iterator[None]:
    """The same for a step that counts nothing, with the time that has passed.

    Args:
        label: what is being done.
        quiet: show nothing.
        step: a key of ``step_rates.MEASURED``, of which it is known how long it lasts: the bar fills by the clock and
            says about how long is to go.
        nodes: of the graph.
    """
    if quiet or sys.stderr is None:
        yield
        return
    total, console = step_rates.expected(step, nodes) if step else None, _terminal()
    start = time.perf_counter()
    with _clock_bar(label, console, total) if console else phase_lines(label, Log(sys.stderr), total):
        yield
    lasted = time.perf_counter() - start
    if step and (console or lasted >= progress_lines.PACE.silent):
        step_rates.remember(step, nodes, lasted)


class Phases:
    """What is shown of a command that does one thing after another; a context."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._log = quiet, Log(sys.stderr)
        self._shown, self._what = ExitStack(), ""
        self._step: Step = lambda done, total: None

    def __enter__(self) -> Phases:
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def begin(self, what: str) -> None:
        """Show ``what`` from now on."""
        self._shown.close()
        self._what, self._step = what, self._shown.enter_context(progress(what, self._quiet, self._log))

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps of what was begun are done."""
        self._step(done, total)

    def step(self, what: str, done: int, total: int) -> None:
        """Both: ``what`` begins where it is not what was shown last."""
        if what != self._what:
            self.begin(what)
        self.count(done, total)


def _terminal() -> Console | None:
    """stderr, if a bar can be drawn there. ``FORCE_COLOR``, which services set for their logs, is about colors."""
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_interactive and sys.stderr.isatty() else None


@contextmanager
def _bar(label: str, console: Console) -> Iterator[Step]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _clock_bar(label: str, console: Console, total: float | None) -> Iterator[None]:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), *_clock_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(label, total=total)
        yield


def _clock_columns() -> tuple[Any, Any]:
    """A bar that fills by the clock, and the time to go, of a task whose total is in seconds."""
    from rich.progress import BarColumn, ProgressColumn, Task
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    class Bar(BarColumn):
        def render(self, task: Task) -> ProgressBar:
            task.completed = min(task.elapsed or 0, _NEARLY * (task.total or 0))
            return super().render(task)

    class ToGo(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.total is None else to_go(task.total - (task.elapsed or 0)))

    return Bar(), ToGo()


def to_go(seconds: float) -> str:
    """What is said of the time to go: whole seconds, or that it should be over."""
    return f"about {seconds:.0f} s to go" if seconds >= 1 else "nearly done"
