"""Bars that show how far a command is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fxqat.commands import step_rates

Step = Callable[[int, int], None]
_NEARLY = 0.98  # how full a bar gets that fills by the clock


@contextmanager
def progress(label: str, quiet: bool) -> Iterator[Step]:
    """A bar on the terminal with count, elapsed and remaining time, for no log file; yields ``step(done, total)``."""
    from rich.console import Console
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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def working(label: str, quiet: bool, step: str = "", nodes: int = 0) -> Iterator[None]:
    """A bar on the terminal alone for a step that counts nothing, with the time that has passed.

    Args:
        label: what is being done.
        quiet: show nothing.
        step: a key of ``step_rates.MEASURED``, of which it is known how long it lasts: the bar fills by the clock and
            says about how long is to go.
        nodes: of the graph.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = console.is_terminal and not quiet
    total = step_rates.expected(step, nodes) if shown and step else None
    columns = (TextColumn("{task.description}"), *_clock_columns(), TimeElapsedColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        bar.add_task(label, total=total)
        yield
    if shown and step:
        step_rates.remember(step, nodes, time.perf_counter() - start)


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


@contextmanager
def phases(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar after another: ``step(what, done, total)`` starts a new one when ``what`` changes."""
    state: dict[str, Any] = {"what": "", "bar": None, "step": None}

    def step(what: str, done: int, total: int) -> None:
        if what != state["what"]:
            close()
            state["bar"] = progress(what, quiet)
            state.update(what=what, step=state["bar"].__enter__())
        state["step"](done, total)

    def close() -> None:
        if state["bar"] is not None:
            state["bar"].__exit__(None, None, None)
            state["bar"] = None

    try:
        yield step
    finally:
        close()
