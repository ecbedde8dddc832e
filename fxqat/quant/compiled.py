"""Chains of elementwise steps as one kernel each, where torch.compile finds a C++ compiler.

A quantizer in steps of ATen's passes over memory up to ten times where one would do, and looks tables up on one
thread. Switched on (training does so for its time), the functions below are compiled once for every size of tensor and
kept on disk by torch. They work on flat float32 tensors on a CPU; numbers come as one short tensor, since a Python
float would be compiled in.
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


def flat(x: Tensor) -> Tensor:
    """The memory of a dense tensor as one dimension."""
    return x.as_strided((x.numel(),), (1,))


def like(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` in the memory order of ``x``."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


class Kernel:
    """A function of flat tensors that is compiled at its first call; no gradient of its own.

    Where compiling fails the function runs as it is written from then on, and a log entry says why.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._made: Callable[..., Any] | None = None

    def __call__(self, *tensors: Tensor) -> Any:
        """The function's results."""
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


def _fake_quantized(x: Tensor, numbers: Tensor) -> Tensor:
    """affine.fake_quantize; ``numbers`` are the scale, and the lowest and highest code relative to the zero point."""
    scale, lowest, highest = numbers
    codes = torch.clamp(torch.round(x / scale), lowest, highest)
    # +0.0 for the -0.0 that rounding leaves; a compiler would drop the addition of zero
    return torch.where(codes == 0, 0.0, codes * scale)


def _learned_scale(grad: Tensor, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """gradients.LearnedScale: the gradient of ``x``, and the sums of those of scale (zero point 0) and offset, without
    their gain. ``numbers`` go on with the ends of the values whose gradient passes."""
    scale, lowest, highest, low, high = numbers
    steps = x / scale
    codes = torch.clamp(torch.round(steps), lowest, highest)
    through = torch.where((x > low) & (x < high), grad, 0.0)
    return through, (grad * codes - through * steps).sum(), (grad - through).sum()


def _looked_up(x: Tensor, numbers: Tensor, values: Tensor) -> Tensor:
    """``values`` at the code of ``x``, numbers as for _fake_quantized."""
    scale, lowest, highest = numbers
    codes = torch.clamp(torch.round(x / scale), lowest, highest)
    # NaN has no code: any index will do, since what it is looked up for is not used
    index = torch.clamp((codes - lowest).to(torch.int32), 0, values.shape[0] - 1)
    return torch.where(x == x, values[index], x)


def _silu_gradients(
    grad: Tensor, x: Tensor, first: Tensor, middle: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """silu._LookUp: the gradient of ``x``, and the sums as in _learned_scale of the first and of the last quantizer;
    numbers of the three as for _learned_scale."""
    scale, lowest, highest, low, high = first
    steps = x / scale
    codes = torch.clamp(torch.round(steps), lowest, highest)
    y = codes * scale
    sigmoid = torch.sigmoid(y)
    scale2, lowest2, highest2, low2, high2 = middle
    gate = torch.clamp(torch.round(sigmoid / scale2), lowest2, highest2) * scale2
    slope = torch.where((sigmoid > low2) & (sigmoid < high2), y * sigmoid * (1 - sigmoid), 0.0) + gate
    scale3, lowest3, highest3, low3, high3 = last
    product = y * gate
    steps3 = product / scale3
    codes3 = torch.clamp(torch.round(steps3), lowest3, highest3)
    inside = torch.where((product > low3) & (product < high3), grad, 0.0)
    inner = inside * slope
    through = torch.where((x > low) & (x < high), inner, 0.0)
    sums = (inner * codes - through * steps, inner - through, grad * codes3 - inside * steps3, grad - inside)
    return through, *(part.sum() for part in sums)  # type: ignore[return-value]


fake_quantized = Kernel(_fake_quantized)
learned_scale = Kernel(_learned_scale)
looked_up = Kernel(_looked_up)
silu_gradients = Kernel(_silu_gradients)
