"""Unpickling checkpoints without running what a stranger put into them.

A .pt file is a pickle, and a pickle may call any function it names. `PickleReader` calls nothing but the short list of
``fxqat.models.checkpoint_names``, where layers can be restored but not constructed: a constructor is a function like
any other, and DetectionModel's evaluates the ``activation`` of the architecture it is given.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fxqat.errors import Problem
from fxqat.models import torch_file
from fxqat.models.checkpoint_names import CheckpointNames, is_leftover, modern
from fxqat.models.pickle_reader import Malformed, Refused


def unpickled(path: Path, *, trust: bool = False) -> Any:
    """What a file written by ``torch.save`` holds, on the CPU.

    Args:
        path: the file.
        trust: where the file asks for more than the allow-list offers, grant it; it can run any code.

    Raises:
        Problem: missing, empty, damaged, or asking for more than it may.
    """
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .pt checkpoint", remedy="check the path")
    if path.stat().st_size == 0:
        raise Problem(path, "is empty", expected="a .pt checkpoint", remedy="download it again")
    try:
        return torch_file.load(path, CheckpointNames())
    except Refused as error:
        if trust:
            return _trusted(path)
        raise Problem(path, f"is refused: {error}", remedy=error.remedy) from error
    except OSError as error:
        raise Problem(path, f"cannot be read ({error.strerror or error})", remedy="check its permissions") from error
    except Malformed as error:
        raise Problem(
            path, f"cannot be read ({error})", expected="a .pt checkpoint", remedy="download it again"
        ) from error


def _trusted(path: Path) -> Any:
    """What Python's own unpickler makes of the file, with today's names for what older versions called otherwise."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_TRUSTING)
    except Exception as error:  # the code that the pickle runs may fail in any way
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Problem(path, f"cannot be read ({first})", expected="a .pt checkpoint") from error


class _TrustingUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The class, by the name that it has in the versions at hand."""
        module, name = modern(module, name)
        try:
            return super().find_class(module, _PORTABLE.get((module, name), name))
        except (AttributeError, ImportError):
            if is_leftover(f"{module}.{name}"):
                return _Gone
            raise


class _Gone:
    """An object beside the model, such as its loss, whose class the versions at hand do not have."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# A path of another system cannot be made; a pure one, which touches no file, can.
_PORTABLE = {("pathlib", "WindowsPath"): "PureWindowsPath", ("pathlib", "PosixPath"): "PurePosixPath"}
_TRUSTING = ModuleType("fxqat_trusting")  # torch.load takes a module
vars(_TRUSTING).update(Unpickler=_TrustingUnpickler, load=lambda file, **how: _TrustingUnpickler(file, **how).load())
