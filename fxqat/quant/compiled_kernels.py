"""A function of elementwise steps as one kernel, where torch.compile finds a C++ compiler.

Step by step ATen passes over memory up to ten times where one pass would do, and looks tables up on one thread.
Switched on (training does so for its time), a Kernel is compiled once for all sizes of float32 tensors on a CPU, and
kept on disk by torch. See chains.py for those that there are.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Below this many elements the guards of a compiled function cost more than its passes save.
SMALLEST = 1 << 15
_COMPILERS = ("c++", "g++", "clang++", "cl")


class _Switch:
    on = False


_switch = _Switch()


@contextmanager
def kernels(wanted: bool = True) -> Iterator[bool]:
    """Use compiled kernels for the time of a ``with``, where there is a compiler; gives whether they are used."""
    before = _switch.on
    _switch.on = wanted and has_compiler()
    try:
        yield _switch.on
    finally:
        _switch.on = before


def has_compiler() -> bool:
    """Whether a C++ compiler is at hand."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name)


def applies(x: Tensor) -> bool:
    """Whether a kernel is to be used for ``x``."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return _switch.on and plain and x.numel() >= SMALLEST and is_dense(x) and not torch.compiler.is_compiling()


def is_dense(x: Tensor) -> bool:
    """Whether ``x`` fills its memory in some order of its dimensions, channels last as well as contiguous."""
    return torch.empty_like(x).stride() == x.stride()


class Kernel:
    """A function that is compiled at its first call; no gradient of its own.

    It is given the memory of its first ``dense`` tensors as one dimension each, all in the order of the first, and then
    the others as they are; what it gives first is made the shape of the first again. Where compiling fails the function
    runs as it is written from then on, and a log entry says why.

    Args:
        function: of tensors; a Python number would be compiled in.
        dense: how many of its tensors are worked on element by element, at least one.
    """

    def __init__(self, function: Callable[..., Any], *, dense: int = 1) -> None:
        self.function, self.dense = function, dense
        self._made: Callable[..., Any] | None = None

    def __call__(self, x: Tensor, *others: Tensor) -> Any:
        """The function's results; see ``applies`` for what ``x`` must be."""
        beside, numbers = others[: self.dense - 1], others[self.dense - 1 :]
        found = self._run(_flat(x), *(_flat(like(one, x)) for one in beside), *numbers)
        first, *rest = found if isinstance(found, tuple) else (found,)
        first = first.as_strided(x.shape, x.stride())
        return (first, *rest) if rest else first

    def _run(self, *tensors: Tensor) -> Any:
        if self._made is None:
            self._made = torch.compile(self.function, dynamic=True, fullgraph=True)
        tensors = tuple(one.detach() for one in tensors)  # or whether one requires a gradient would be compiled in
        if self._made is self.function:
            return self.function(*tensors)
        try:
            with _quietly():
                return self._made(*tensors)
        except Exception as error:  # whatever a compiler may say; the steps are always there
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            logging.getLogger("fxqat").warning("%s is not compiled: %s", self.function.__name__, reason)
            self._made = self.function
            return self.function(*tensors)


def like(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` in the memory order of ``x``."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _flat(x: Tensor) -> Tensor:
    return x.as_strided((x.numel(),), (1,))


@contextmanager
def _quietly() -> Iterator[None]:
    # it speaks of CUDA, which no kernel here is for
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
