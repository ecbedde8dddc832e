"""Runtime: what fxqat must know of a program that runs exported files, to compare its integers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fxqat.quant.pair_order import Order

Arrays = Sequence[np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], Arrays]
Open = Callable[[Any], Run]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A runtime: its name on the command line and in words, the package it needs, and how it opens a file.

    ``open`` takes a model, a ``ModelProto`` or the bytes of a .tflite file, and gives a function from {input name:
    array} to its outputs in the model's order. ``pair_orders`` say which weights its kernels pair where they add two
    products in 16 bits; empty, they never do. ``arithmetic`` is that of its integer kernels where it is not the
    target's own, by its name in fxqat.quant.arithmetic. ``differs`` says, by machine (``platform.machine()``), what its
    kernels there are known to compute in another way than the reference.
    """

    name: str
    title: str
    package: str
    pair_orders: tuple[Order, ...] = ()
    open: Open
    suffix: str = ".onnx"
    arithmetic: str | None = None
    differs: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether its package is here."""
        return importlib.util.find_spec(self.package) is not None
