"""The head behind the outputs of an exported file, as the file's metadata tell of it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.models.families import DEFAULT, FAMILIES
from fxqat.models.family import Family, HeadSpec, Shapes

LEAST_STRIDE = 32  # pixels; Ultralytics rounds image sizes to it where a head's own is less
# What reading a stranger's words raises: ``ast.literal_eval``, and values of other types than are meant.
_OTHERWISE = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError),
)


@dataclass(frozen=True, kw_only=True)
class FileHead:
    """What a file predicts.

    Attributes:
        family: of its task.
        spec: the sizes of its head.
        names: of the classes, by index.
        stride: pixels of a cell of the coarsest level, 32 at least.
    """

    family: Family
    spec: HeadSpec
    names: dict[int, str]
    stride: int


def file_head(path: Path, metadata: Mapping[str, Any], names: Mapping[Any, Any] | str, shapes: Shapes) -> FileHead:
    """The head that ``metadata`` of Ultralytics' form describe; without a task, a detector's.

    Args:
        path: of the file, for what is refused.
        metadata: of any values; ONNX has texts.
        names: of the classes by index, or the Python text of such a mapping.
        shapes: of the outputs.

    Raises:
        Problem: an unknown task, names that are no mapping of 0, 1 ... to names, or sizes that no head has.
    """
    task = str(metadata.get("task", DEFAULT.task))
    if task not in FAMILIES:
        raise Problem(path, f"is a model for the task '{task}'", expected=f"one of: {', '.join(FAMILIES)}")
    family, known = FAMILIES[task], _class_names(path, names)
    words = {key: str(value) for key, value in metadata.items()}
    try:
        spec = family.described(words, len(known), shapes)
    except _OTHERWISE as error:
        raise Problem(path, f"its metadata describe no head ({error})", expected="Ultralytics' metadata") from error
    return FileHead(family=family, spec=spec, names=known, stride=_stride(path, metadata))


def _class_names(path: Path, found: Mapping[Any, Any] | str) -> dict[int, str]:
    try:
        told = ast.literal_eval(found) if isinstance(found, str) else found
        names = {int(index): str(name) for index, name in told.items()}
    except _OTHERWISE as error:
        raise Problem(path, "its metadata 'names' is no mapping of numbers to names") from error
    if not names or sorted(names) != list(range(len(names))):
        raise Problem(path, f"its metadata 'names' is of {len(names)} classes", expected="a name for each of 0, 1 ...")
    return names


def _stride(path: Path, metadata: Mapping[str, Any]) -> int:
    text = str(metadata.get("stride", LEAST_STRIDE))
    if not text.isdecimal():
        raise Problem(path, f"its metadata 'stride' is {text!r}", expected="a whole number of pixels")
    return max(LEAST_STRIDE, int(text))
