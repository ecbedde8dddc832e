"""Exported files as evaluation sees them, each in the runtime that its kind is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fxqat.evaluation.predictor import Predictor, from_onnx
from fxqat.evaluation.tflite_predictor import from_tflite
from fxqat.runtime.runtimes import default_runtime

OPEN: Mapping[str, Callable[..., Predictor]] = {".onnx": from_onnx, ".tflite": from_tflite}


def is_exported(path: str | Path) -> bool:
    """Whether the name of ``path`` is that of a file which a runtime opens."""
    return Path(path).suffix in OPEN


def from_file(path: str | Path, *, threads: int | None = None) -> Predictor:
    """An .onnx file in ONNX Runtime, a .tflite file in LiteRT, on the CPU.

    Args:
        path: of a kind that ``is_exported`` knows.
        threads: of the runtime; its default without it.

    Raises:
        Problem: the file is missing or cannot be run, or its runtime is not installed.
    """
    return OPEN[Path(path).suffix](path, threads=threads)


def runtime_title(path: str | Path) -> str:
    """The runtime that ``from_file`` opens ``path`` in, in words."""
    return default_runtime(Path(path).suffix).title
