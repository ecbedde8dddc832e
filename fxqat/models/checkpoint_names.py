"""The names that the pickle of a checkpoint may hold, and what each stands for here.

Layers of torch and Ultralytics are restored, never constructed. Containers, numbers, paths and tensors are made by
``checkpoint_values``. What training and preprocessing leave beside the model, which nothing here reads, becomes a
`Leftover`: its class is not even imported. Everything else is refused.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections import OrderedDict
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)
from fxqat.models.checkpoint_values import GLOBALS, DType, Leftover, leftover
from fxqat.models.pickle_reader import Global, Malformed, Refused

# Where Ultralytics, NumPy and Python keep today what other versions keep elsewhere; Ultralytics 8.0 had a package yolo.
_MOVED_MODULES = {
    "ultralytics.yolo.v8": "ultralytics.models.yolo",
    "ultralytics.yolo": "ultralytics",
    "pathlib._local": "pathlib",
    "numpy.core": "numpy._core",
}
_MOVED = {
    ("ultralytics.nn.modules.block", "Silence"): ("torch.nn.modules.linear", "Identity"),
    ("ultralytics.nn.tasks", "YOLOv10DetectionModel"): ("ultralytics.nn.tasks", "DetectionModel"),
    ("ultralytics.utils.loss", "v10DetectLoss"): ("ultralytics.utils.loss", "E2EDetectLoss"),
}
_MODELS = "ultralytics.nn.tasks"
_LAYERS = ("torch.nn.modules", "ultralytics.nn.modules")
# What stands beside a model's layers, by globs of names: nothing of it is imported, called or read.
_LEFTOVERS = (
    "ultralytics.utils.loss.*",
    "ultralytics.utils.tal.*",
    "ultralytics.utils.callbacks.*",
    "ultralytics.nn.distill_model.*",
    "ultralytics.models.yolo.*.train.*Loss",
    "ultralytics.models.yolo.model.*",
    "ultralytics.engine.model.*",
    "torch.optim.*",
    "torch.amp.grad_scaler.*",
    "torch.cuda.amp.grad_scaler.*",
    "torch.nn.parallel.*",
    "torch.distributed.*",
    "torchvision.transforms.*",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.numeric._frombuffer",
    "dill._dill._create_array",
)
_GROUPS = ("_modules", "_parameters", "_buffers")


class CheckpointNames:
    """The vocabulary of checkpoints, for `PickleReader`."""

    def find(self, module: str, name: str) -> Any:
        """What ``module.name`` stands for.

        Raises:
            Refused: it is not on the list.
        """
        module, name = modern(module, name)
        full = f"{module}.{name}"
        if full in GLOBALS:
            return GLOBALS[full]
        if is_leftover(full):
            return leftover(full)
        if (layer := _layer(full)) is not None:
            return Global(name=layer.__name__, new=partial(layer.__new__, layer), kind=layer)
        if isinstance(value := vars(torch).get(name), torch.dtype) and module == "torch":
            return value
        raise _unknown(full)

    def build(self, instance: Any, state: Any) -> None:
        """Give a restored object its state.

        Raises:
            Refused: an object that has none, or a layer that holds anything but layers and tensors where it computes.
        """
        if isinstance(instance, nn.Module):
            _build_layer(instance, state)
        elif isinstance(instance, Leftover):
            instance.state = state
        elif isinstance(instance, DType):
            instance.order = state[1]
        elif type(instance) is SimpleNamespace and type(state) is dict:
            vars(instance).update(state)
        elif not isinstance(instance, (Tensor, OrderedDict)):  # attributes of these are not read
            raise Refused(f"it gives a {type(instance).__name__} a state")

    def persistent(self, key: Any) -> Any:
        """Nothing lies outside a pickle that stands alone."""
        raise Refused(f"it names {key!r} outside the pickle")


def modern(module: str, name: str) -> tuple[str, str]:
    """Module and name as the newest versions of Ultralytics, NumPy and Python have them."""
    old = next((one for one in _MOVED_MODULES if f"{module}.".startswith(f"{one}.")), "")
    module = _MOVED_MODULES.get(old, "") + module.removeprefix(old)
    return _MOVED.get((module, name), (module, name))


def is_leftover(full: str) -> bool:
    """Whether ``full`` names what may stand beside a model and is not loaded."""
    return any(fnmatch.fnmatchcase(full, glob) for glob in _LEFTOVERS)


def _layer(full: str) -> type[nn.Module] | None:
    """The class of a layer or model, if ``full`` names one. Nothing outside three packages is imported."""
    module, _, name = full.rpartition(".")
    if (package := _package(module)) is None:
        return None
    found = [vars(one).get(name) for one in (_imported(module), _imported(package)) if one is not None]
    kind = next((one for one in found if isinstance(one, type) and issubclass(one, nn.Module)), None)
    return kind if kind is not None and _package(kind.__module__) else None


def _package(module: str) -> str | None:
    """The package of layers or models that ``module`` belongs to."""
    return next((one for one in (*_LAYERS, _MODELS) if f"{module}.".startswith(f"{one}.")), None)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None  # a file of another version of Ultralytics


def _unknown(full: str) -> Refused:
    """The refusal of a name that is not on the list; "could run any code" is said of what could."""
    module, _, name = full.rpartition(".")
    if module.startswith("models."):
        return Refused(
            f"it names {full}, a layer of the yolov5 or yolov7 repository, which Ultralytics does not have",
            "train the model with the ultralytics package",
        )
    if _package(module) and not hasattr(_imported(module), name):
        return Refused(
            f"it names {full}, which Ultralytics {_version()} does not have",
            "install the version of Ultralytics that it was trained with",
        )
    if module == "__main__":
        return Refused(
            f"it names {name}, a class of the program that wrote it, which could run any code",
            "load it with fxqat.load(path, trust=True) in a program that has the class",
        )
    return Refused(f"it names {full}, which is no layer of torch or Ultralytics and could run any code")


def _version() -> str:
    return str(importlib.import_module("ultralytics").__version__)


def _build_layer(layer: nn.Module, state: Any) -> None:
    """Restore ``layer`` as ``nn.Module`` does, once what it computes with is known to be layers and tensors."""
    kind = type(layer).__name__
    if type(state) is not dict or not all(isinstance(state.get(name), dict) for name in _GROUPS):
        raise Malformed(f"damaged: a {kind} without layers and parameters")
    state = {**state, **{name: _without_leftovers(state[name]) for name in state if name.endswith("_hooks")}}
    if type(layer).__module__ == _MODELS:  # a model may hold its loss
        state["_modules"] = _without_leftovers(state["_modules"])
    _expect(kind, state["_modules"], nn.Module)
    _expect(kind, state["_parameters"] | state["_buffers"], Tensor)
    type(layer).__setstate__(layer, state)  # not the instance's, which a state may have set


def _without_leftovers(group: Any) -> Any:
    """``group`` without objects that were not loaded, such as the hooks by which distillation listens."""
    return {name: one for name, one in group.items() if not isinstance(one, Leftover)} if group else group


def _expect(layer: str, group: dict[Any, Any], kind: type) -> None:
    for name, one in group.items():
        if not (isinstance(name, str) and (one is None or isinstance(one, kind))):
            what = one.name if isinstance(one, (Leftover, Global)) else f"a {type(one).__name__}"
            raise Refused(f"the {name} of a {layer} is {what}, which is no {kind.__name__}")
