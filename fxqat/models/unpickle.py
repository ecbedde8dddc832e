"""Unpickling checkpoints without running what a stranger put into them.

A .pt file is a pickle, and a pickle may call any function it names. Here it may name only classes of layers (subclasses
of ``nn.Module`` in torch.nn and ultralytics.nn), which it can restore but not construct, torch's own tensor builders
and a short list of plain containers. Everything else is refused before anything is unpickled.
"""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fxqat.errors import Problem
from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)

# Containers and settings that official checkpoints hold beside their layers; none of them runs code when it is built.
_PLAIN = (
    "collections.OrderedDict",
    "builtins.set",
    "builtins.dict",
    "builtins.slice",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "ultralytics.utils.IterableSimpleNamespace",
    "torch.Size",
)
_MODEL = "ultralytics.nn.tasks.DetectionModel"
_LAYER_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.", "ultralytics.nn.modules")


class _Called(Exception):
    """A pickle called a class that it may only restore."""


def unpickled(path: Path, *, trust: bool = False) -> Any:
    """What a file written by ``torch.save`` holds, on the CPU.

    Args:
        path: the file.
        trust: unpickle classes outside the allow-list too; they can run any code.

    Raises:
        Problem: missing, empty, damaged, naming a class outside the allow-list, or calling one inside it.
    """
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .pt checkpoint", remedy="check the path")
    if path.stat().st_size == 0:
        raise Problem(path, "is empty", expected="a .pt checkpoint", remedy="download it again")
    if not zipfile.is_zipfile(path):
        raise Problem(
            path, "is not a checkpoint of torch.save, or is damaged", expected="a .pt file", remedy="download it again"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False) if trust else _restricted(path)
    except Problem:
        raise
    except (_Called, pickle.UnpicklingError) as error:
        raise Problem(
            path, f"is refused ({_first_line(error)})", remedy="pass --trust if you trust its author"
        ) from error
    except Exception as error:  # a damaged pickle is a program gone wrong: it may fail in any way
        raise Problem(path, f"cannot be read ({_first_line(error)})", expected="a .pt checkpoint") from error


def _restricted(path: Path) -> Any:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(_allowed(name, path), name) for name in names]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    for module in _modules_in(content):
        module.__class__ = getattr(type(module), "stands_for", type(module))
    return content


def _modules_in(content: Any) -> list[nn.Module]:
    roots = content.values() if isinstance(content, dict) else [content]
    return [module for root in roots if isinstance(root, nn.Module) for module in root.modules()]


def _allowed(name: str, path: Path) -> Callable[..., Any]:
    """The object behind a global that the pickle names, if it is on the allow-list. Nothing outside two packages is
    imported."""
    module, _, attribute = name.rpartition(".")
    if name in _PLAIN:
        return cast(Callable[..., Any], getattr(importlib.import_module(module), attribute))
    if name == _MODEL or module.startswith(_LAYER_MODULES):
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return _inert(found)
    raise Problem(
        path,
        f"is refused: it names {name}, which is no layer of torch or Ultralytics and could run any code",
        remedy="pass --trust if you trust its author",
    )


def _inert(layer: type[nn.Module]) -> type[nn.Module]:
    """A stand-in for ``layer`` that a pickle can fill with its state, as pickles of modules do, but not call.

    A constructor is a function like any other: DetectionModel's evaluates the ``activation`` of the architecture it is
    given.
    """

    def refuse(self: nn.Module, *args: object, **kwargs: object) -> None:
        raise _Called(f"it calls {layer.__name__} instead of restoring one")

    return type(layer.__name__, (layer,), {"__init__": refuse, "stands_for": layer})


def _first_line(error: Exception) -> str:
    """The first line of what went wrong, without torch's advice to load the file all the same."""
    words = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return (words.splitlines() or [type(error).__name__])[0]
