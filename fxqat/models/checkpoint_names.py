"""The names that the pickle of a checkpoint may hold, and what each stands for here.

Layers of torch and Ultralytics are restored, never constructed. Plain containers are filled from plain containers.
Tensors are views of the file's data. What training and preprocessing leave beside the model, which nothing here reads,
becomes a `Leftover`: its class is not even imported. Everything else is refused.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)
from fxqat.models.pickle_reader import Global, Malformed, Refused
from fxqat.models.torch_file import Storage

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
_NUMBER = re.compile(r"[?biufcSU]\d*")
_PLAIN = (list, tuple, dict, set, frozenset, OrderedDict)


@dataclass(eq=False)
class Leftover:
    """An object of a class that is not loaded: its name, how it was made, and its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = field(default=None, repr=False)


class CheckpointNames:
    """The vocabulary of checkpoints, for `PickleReader`."""

    def find(self, module: str, name: str) -> Any:
        """What ``module.name`` stands for.

        Raises:
            Refused: it is not on the list.
        """
        module, name = modern(module, name)
        full = f"{module}.{name}"
        if full in _GLOBALS:
            return _GLOBALS[full]
        if is_leftover(full):
            return _leftover(full)
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
        elif isinstance(instance, _DType):
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


def _leftover(full: str) -> Global:
    def make(*arguments: Any, **_: Any) -> Leftover:
        return Leftover(full, arguments)

    return Global(name=full, call=make, new=make, kind=Leftover)


def _attribute(owner: Any = None, name: Any = None, *_: Any) -> Any:
    """``getattr`` as Ultralytics writes it: ``Detect.forward`` of segmentation heads, the ``forward_fuse`` that
    ``fuse()`` puts over ``forward``, a member of an enumeration."""
    is_class = isinstance(owner, Global)
    kind = owner.kind if is_class else type(owner)
    if isinstance(name, str) and kind is Leftover and is_class and not name.startswith("_"):
        return Leftover(f"{owner.name}.{name}")
    if isinstance(name, str) and name.startswith("forward") and isinstance(kind, type) and issubclass(kind, nn.Module):
        function = inspect.getattr_static(kind, name, None)
        if isinstance(function, FunctionType):
            return function if is_class else function.__get__(owner)
    what = owner.name if is_class else f"a {type(owner).__name__}"
    raise Refused(f"it calls getattr({what}, {name!r}), which could run any code")


def _method(function: Any, owner: Any) -> Any:
    """A method of a layer as dill writes it: a function that getattr gave, and the layer."""
    if not (isinstance(function, FunctionType) and isinstance(owner, nn.Module)):
        raise Refused(f"it makes a method of a {type(owner).__name__}")
    return function.__get__(owner)


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """``copyreg._reconstructor``, by which protocols 0 and 1 make the objects that NEWOBJ makes since."""
    if not isinstance(kind, Global) or kind.new is None or state is not None:
        raise Refused(f"it makes an object of {getattr(kind, 'name', kind)}, which is no class")
    return kind.new()


def _from_items(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    """A container of plain items; nothing is iterated that could be endless or run code."""

    def make(items: Any = ()) -> Any:
        if type(items) not in _PLAIN:
            raise Refused(f"it fills a container from a {type(items).__name__}")
        return kind(items)

    return make


def _default_dict(factory: Any = None, items: Any = ()) -> dict[Any, Any]:
    return {} if type(items) not in _PLAIN else dict(items)


def _bytes(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``, by which protocol 2 writes bytes."""
    return text.encode("latin1")


def _dill_type(name: Any) -> Global:
    """A built-in class as dill writes it; versions 8.0.196 to 8.3 of Ultralytics used dill where it was installed."""
    found = _GLOBALS.get(f"builtins.{name}", _GLOBALS.get(f"types.{name}"))
    if not isinstance(found, Global):
        raise Refused(f"it names {name} by dill, which could run any code")
    return found


@dataclass
class _DType:
    """A NumPy dtype: its code (``f8``) and its byte order."""

    code: str
    order: str = "="


def _dtype(code: Any, align: bool = False, copy: bool = True) -> _DType:
    return _DType(str(code))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A NumPy number or text as Python's own."""
    if not isinstance(dtype, _DType) or not _NUMBER.fullmatch(dtype.code) or dtype.order not in {"<", ">", "=", "|"}:
        return Leftover("numpy._core.multiarray.scalar", (dtype, data))
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, np.dtype(dtype.order + dtype.code))[0].item()


def _tensor(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool = False, *_: Any) -> Tensor:
    """``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``: a view that stays within its storage."""
    return torch.as_strided(_storage(storage).elements, tuple(size), tuple(stride), offset).requires_grad_(
        bool(requires_grad)
    )


def _tensor_of(
    storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """``_rebuild_tensor_v3``, for dtypes without a storage class of their own."""
    return torch.as_strided(_storage(storage).elements.view(dtype), tuple(size), tuple(stride), offset)


def _storage(storage: Any) -> Storage:
    if not isinstance(storage, Storage):
        raise Malformed(f"damaged: a tensor of a {type(storage).__name__}")
    return storage


def _parameter(data: Any, requires_grad: bool = True, *_: Any) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise Malformed(f"damaged: a parameter of a {type(data).__name__}")
    return nn.Parameter(data.detach(), bool(requires_grad))


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a tensor with attributes, which are not read."""
    if not isinstance(function, Global) or function.call is None or not function.name.startswith("torch._utils."):
        raise Refused(f"it makes a tensor by {getattr(function, 'name', function)}")
    return function.call(*arguments)


def _by_name(functions: dict[str, Callable[..., Any] | None]) -> dict[str, Global]:
    return {name: Global(name=name, call=function, new=function) for name, function in functions.items()}


_GLOBALS: dict[str, Any] = _by_name(
    {
        "builtins.getattr": _attribute,
        "builtins.object": None,
        "builtins.set": _from_items(set),
        "builtins.frozenset": _from_items(frozenset),
        "builtins.list": _from_items(list),
        "builtins.tuple": _from_items(tuple),
        "builtins.dict": _from_items(dict),
        "builtins.slice": slice,
        "builtins.complex": complex,
        "collections.OrderedDict": _from_items(OrderedDict),
        "collections.Counter": _from_items(Counter),
        "collections.deque": _from_items(deque),
        "collections.defaultdict": _default_dict,
        "types.SimpleNamespace": SimpleNamespace,
        "types.MethodType": _method,
        "ultralytics.utils.IterableSimpleNamespace": SimpleNamespace,
        "_codecs.encode": _bytes,
        "builtins.bytes": lambda: b"",
        "copyreg._reconstructor": _reconstructed,
        "dill._dill._load_type": _dill_type,
        "pathlib.Path": lambda *parts: str(PurePosixPath(*parts)),
        "pathlib.PosixPath": lambda *parts: str(PurePosixPath(*parts)),
        "pathlib.PurePosixPath": lambda *parts: str(PurePosixPath(*parts)),
        "pathlib.WindowsPath": lambda *parts: str(PureWindowsPath(*parts)),
        "pathlib.PureWindowsPath": lambda *parts: str(PureWindowsPath(*parts)),
        "numpy.dtype": _dtype,
        "numpy._core.multiarray.scalar": _scalar,
        "torch.Size": _from_items(torch.Size),
        "torch.device": torch.device,
        "torch.Tensor": None,
        "torch.nn.parameter.Parameter": _parameter,
        "torch.serialization._get_layout": lambda name: name,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of,
        "torch._utils._rebuild_parameter": _parameter,
        "torch._utils._rebuild_parameter_with_state": _parameter,
        "torch._tensor._rebuild_from_type_v2": _from_type,
    }
) | {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.storage._UntypedStorage": torch.uint8,
}
