"""Bars that show how far a command is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Step = Callable[[int, int], None]


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
def working(label: str, quiet: bool) -> Iterator[None]:
    """A moving bar with the time that has passed, on the terminal alone, for a step that counts nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        bar.add_task(label, total=None)
        yield


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
