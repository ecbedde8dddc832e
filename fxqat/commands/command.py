"""What a command is, and what several do around their work."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fxqat.errors import Problem

if TYPE_CHECKING:
    from fxqat.models.detector import Detector
    from fxqat.models.image_size import ImageSize


@dataclass(frozen=True, kw_only=True)
class Command:
    """A word on the command line.

    Attributes:
        name: the word.
        help: what it does, in one line.
        example: a command line that works, or several, one a line.
        arguments: adds its arguments to a parser.
        run: does it.
    """

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


def output(options: Namespace, default: str, *suffixes: str) -> Path:
    """Where to write: ``-o``, or the default name; refused before any work when it cannot be written, or ends in none
    of ``suffixes``, where there are some."""
    from fxqat.files import check_suffix, check_writable

    path = Path(options.output or default)
    check_suffix(path, *suffixes)
    check_writable(path)
    return path


_REPLACED = ("_int8", "_ptq")  # stages of one model that the next one takes the place of in a name
_MARKS = (*_REPLACED, "_qat")


def default_name(source: str | Path, tail: str) -> str:
    """The name of what a command makes of ``source``, beside it; every command's output is named here.

    ``n_ptq.fxqat`` with the tail ``_int8.onnx`` is ``n_int8.onnx``. What was trained keeps its mark,
    ``n_qat_int8.onnx``, and a checkpoint whose own name ends in a mark gets a hyphen instead: ``best_qat.pt`` is
    ``best-qat.fxqat``, since ``best_qat.fxqat`` is what training makes of ``best.pt``.
    """
    path = Path(source)
    if path.suffix != ".fxqat":
        mark = next((mark for mark in _MARKS if path.stem.endswith(mark)), "")
        stem = path.stem.removesuffix(mark) + mark.replace("_", "-")
    else:
        stem = path.stem.removesuffix(_REPLACED[0]).removesuffix(_REPLACED[1])
    return str(path.with_name(f"{stem}{tail}"))


def typed(*words: object) -> str:
    """A command line as a user types it: words with spaces are quoted."""
    return shlex.join(str(word) for word in words)


def image_size(options: Namespace, model: Detector) -> ImageSize:
    """``--imgsz``, or what ``model`` was trained or calibrated at; a line on stderr where the two differ."""
    if options.imgsz is None:
        return model.imgsz
    made = bool(model.recipe.calibration or model.recipe.training)
    if made and options.imgsz != model.imgsz:
        at = "trained" if model.recipe.training else "calibrated"
        print(f"fxqat: {at} at {model.imgsz} pixels, used at {options.imgsz}", file=sys.stderr)
    size: ImageSize = options.imgsz
    return size


def check_counts(options: Namespace) -> None:
    """Refuse counts below one.

    Raises:
        Problem: naming the option.
    """
    for name in ("images", "batch", "threads", "candidates", "verify"):
        value = getattr(options, name, None)
        if value is not None and value < 1:
            raise Problem(f"--{name}", str(value), expected="1 or more")


_FILES, _FOLDERS = ("json", "csv"), ("folder", "work", "plots")


def check_places(options: Namespace) -> None:
    """Refuse files and folders beside the output that cannot be written, before any work. A file may lie in a folder
    that the command will make.

    Raises:
        Problem: naming the file or folder.
    """
    from fxqat.files import check_folder, check_writable

    folders = [Path(place) for place in _given(options, _FOLDERS)]
    for folder in folders:
        check_folder(folder)
    for file in map(Path, _given(options, _FILES)):
        if file.parent not in folders or file.parent.exists():
            check_writable(file)


def _given(options: Namespace, names: Iterable[str]) -> list[str]:
    places = (getattr(options, name, None) for name in names)
    return [place for place in places if isinstance(place, str) and place]  # in some commands ``--json`` is a switch


def say_unnamed(model: Detector, given: str) -> None:
    """A line where ``given``, the file that ``model`` was read from, lacks names of classes."""
    if count := model.source.unnamed:
        print(f"{count} of {len(model.names)} classes have no name in {given}: their number is it")


def write_json(options: Namespace, found: object) -> None:
    """Write ``found`` to ``--json``, where it was given."""
    from fxqat.files import write_text
    from fxqat.json_text import json_text

    if options.json:
        write_text(options.json, json_text(found) + "\n")


def say_skipped(skipped: list[tuple[Path, str]]) -> None:
    """One line on stderr for all images that could not be read."""
    import sys

    if skipped:
        names = ", ".join(f"{path.name} ({why})" for path, why in skipped[:5])
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        print(f"skipped {len(skipped)} images that cannot be read: {names}{more}", file=sys.stderr)


def mark(model: Detector, otherwise: str) -> str:
    """What an output's name says of ``model``: ``_int8`` where it computes in integers."""
    from fxqat.passes.lower import is_integer

    return "_int8" if is_integer(model.gm) else otherwise


def suffix_of(model: Detector, target: str | None = None) -> str:
    """What the name of a file for ``target``, by default the model's own, ends in."""
    from fxqat import targets

    return targets.suffix_of(target or model.recipe.target)
