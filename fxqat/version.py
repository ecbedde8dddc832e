"""The version of fxqat, and those of the libraries that its results depend on."""

from __future__ import annotations

import platform
from importlib import metadata

VERSION = "0.2.0"
LIBRARIES = ("torch", "ultralytics", "onnxruntime", "onnx", "numpy", "opencv-python")  # by their names on PyPI


def installed(package: str) -> str:
    """The version of ``package`` (its name on PyPI) that is installed, without importing it; empty where none is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def library_versions() -> dict[str, str]:
    """Of fxqat, Python and LIBRARIES; a library that is not installed is left out."""
    found = {name: version for name in LIBRARIES if (version := installed(name))}
    return {"fxqat": VERSION, "python": platform.python_version(), **found}
