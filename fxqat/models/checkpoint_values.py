"""What a checkpoint's pickle may call: containers, numbers, paths and tensors, made from plain arguments.

Each function stands for one of Python, NumPy, torch or dill, takes what that takes, and refuses arguments by which the
real one would do more than make a value.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxqat.models.pickle_reader import Global, Malformed, Refused
from fxqat.models.torch_file import Storage

_NUMBER = re.compile(r"[?biufcSU]\d*")
_PLAIN = (list, tuple, dict, set, frozenset, OrderedDict)


@dataclass(eq=False)
class Leftover:
    """An object of a class that is not loaded: its name, how it was made, and its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = field(default=None, repr=False)


def leftover(full: str) -> Global:
    """A class that is not loaded, by its name."""

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
    found = GLOBALS.get(f"builtins.{name}", GLOBALS.get(f"types.{name}"))
    if not isinstance(found, Global):
        raise Refused(f"it names {name} by dill, which could run any code")
    return found


@dataclass
class DType:
    """A NumPy dtype: its code (``f8``) and its byte order."""

    code: str
    order: str = "="


def _dtype(code: Any, align: bool = False, copy: bool = True) -> DType:
    return DType(str(code))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A NumPy number or text as Python's own."""
    if not isinstance(dtype, DType) or not _NUMBER.fullmatch(dtype.code) or dtype.order not in {"<", ">", "=", "|"}:
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


GLOBALS: dict[str, Any] = _by_name(
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
