"""What a runtime refuses, in one line: each raises types of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from fxqat.errors import Problem

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def runtime_refusals(path: Path, title: str) -> Iterator[None]:
    """Turn whatever the runtime called ``title`` raises inside the block into a Problem with ``path``."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:
        words = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise Problem(path, f"{title} cannot run it: {words}", remedy="export it again") from error


def guarded(open_file: Callable[[], Callable[P, T]], path: Path, title: str) -> Callable[P, T]:
    """The function that ``open_file`` gives; what either raises is a Problem, see ``runtime_refusals``."""
    with runtime_refusals(path, title):
        run = open_file()

    def running(*args: P.args, **options: P.kwargs) -> T:
        with runtime_refusals(path, title):
            return run(*args, **options)

    return running
