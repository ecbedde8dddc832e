"""What a command is, and what several do around their work."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fxqat.errors import Problem


@dataclass(frozen=True, kw_only=True)
class Command:
    """A word on the command line: its one-line help, an example, its arguments, and what it does."""

    name: str
    help: str
    example: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def say_inexact(files: Iterable[str | Path], runtime: str = "ort") -> None:
    """A line on stderr for each ONNX file that ``runtime`` on this machine cannot compute exactly."""
    from fxqat.runtime.exactness import inexact_here

    for file in files:
        if Path(file).is_file() and (why := inexact_here(file, runtime)):
            print(f"fxqat: {why}", file=sys.stderr)


def fail(line: str) -> NoReturn:
    """End the command, since a result contradicts a promise: the line on stderr, exit code 1.

    Not 2: nothing is wrong with what was given, and a script wants to tell the two apart.
    """
    print(f"fxqat: {line}", file=sys.stderr)
    raise SystemExit(1)


def output(options: Namespace, default: str) -> Path:
    """Where to write: ``-o``, or the default name; refused before any work when it cannot be written."""
    from fxqat.files import check_writable

    path = Path(options.output or default)
    check_writable(path)
    return path


def default_name(source: str | Path, tail: str) -> str:
    """``yolov8n_ptq.fxqat`` with the tail ``_int8.onnx`` is ``yolov8n_int8.onnx``, beside its source."""
    path = Path(source)
    stem = path.stem.removesuffix("_int8").removesuffix("_ptq").removesuffix("_qat")
    return str(path.with_name(f"{stem}{tail}"))


def check_counts(options: Namespace) -> None:
    """Refuse counts below one.

    Raises:
        Problem: naming the option.
    """
    for name in ("images", "batch", "threads", "candidates"):
        value = getattr(options, name, None)
        if value is not None and value < 1:
            raise Problem(f"--{name}", str(value), expected="1 or more")


def say_skipped(skipped: list[tuple[Path, str]]) -> None:
    """One line on stderr for all images that could not be read."""
    import sys

    if skipped:
        names = ", ".join(f"{path.name} ({why})" for path, why in skipped[:5])
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        print(f"skipped {len(skipped)} images that cannot be read: {names}{more}", file=sys.stderr)
