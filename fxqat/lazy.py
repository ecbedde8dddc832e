"""Public names of a package, imported on first use (PEP 562): ``import fxqat`` loads neither torch nor Ultralytics."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

GetName = Callable[[str], Any]
ListNames = Callable[[], list[str]]


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[GetName, ListNames]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names are found on first use.

    Args:
        package: its name.
        homes: each module, and the public names that it defines.

    Returns:
        Two functions to be the package's own; the first raises AttributeError for any other name.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return get, lambda: sorted(modules)
