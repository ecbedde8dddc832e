"""The tensors of a .tflite file named by their sites in the graph that it was made of."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

from fxqat.errors import Problem
from fxqat.runtime.reference.tensor_names import CODES, permuted
from fxqat.runtime.tflite.tflite_file import TFLiteFile, channels_last

# How a tensor of the graph may lie in the file: channels last, as it is, or rows of channels.
ORDERS = {4: ((0, 2, 3, 1), (0, 1, 2, 3)), 3: ((0, 1, 2), (0, 2, 1)), 2: ((0, 1),)}
_MOVED = ("PAD", "PADV2", "TRANSPOSE")  # the converter's own; what they make is no tensor of the graph


@dataclass(frozen=True, kw_only=True)
class GraphTensor:
    """A tensor of codes: its site, sizes, and numbers as the file has them."""

    site: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


def name_by_site(file: TFLiteFile, tensors: list[GraphTensor]) -> set[int]:
    """Give each value of codes the name of its site. The converter keeps the order of the graph; scale, zero point and
    sizes say that it did.

    Returns:
        The tensors of the file that are codes of the graph.

    Raises:
        Problem: an integer tensor of the graph is not in the file.
        RuntimeError: one of several in the file is its.
    """
    known, last = _integer_tensors(file), channels_last(file)
    for index in range(len(file.graph.tensors)):
        file.rename(index, f"tensor.{index}")
    used, named = set(), set[int]()
    for tensor in tensors:
        order = next((one for one in ORDERS.get(len(tensor.shape), ()) if known[_key(tensor, one)]), None)
        if order is None:
            raise lost(tensor.site)
        used.add(_key(tensor, order))
        index = known[_key(tensor, order)].popleft()
        order = _order(tensor, index in last) or order
        file.rename(index, permuted(tensor.site, order))
        named.add(index)
    if left := [key for key in used if known[key]]:
        raise RuntimeError(f"the file has more integer tensors of {left} than the graph")
    return named


def _integer_tensors(file: TFLiteFile) -> dict[tuple[Any, ...], deque[int]]:
    """Those that operations of the graph may have made, in the order of execution, by ``_key``."""
    known = defaultdict[tuple[Any, ...], deque[int]](deque)
    for index, kind in file.made():
        numbers = file.scales(index)
        if file.type(index) == "int8" and numbers is not None and kind not in _MOVED:
            known[numbers[0].item(), numbers[1].item(), file.shape(index)].append(index)
    return known


def _order(tensor: GraphTensor, is_last: bool) -> tuple[int, ...] | None:
    """How ``tensor`` lies where its sizes do not tell, as 80 channels of 80 x 80 cells."""
    orders = ORDERS[len(tensor.shape)]
    if len({_key(tensor, order) for order in orders}) == len(orders):
        return None
    return next((order for order in orders if (order[-1] == 1) is is_last), None)


def _key(tensor: GraphTensor, order: tuple[int, ...]) -> tuple[Any, ...]:
    return tensor.scale, tensor.zero_point, tuple(tensor.shape[axis] for axis in order)


def lost(site: str) -> Problem:
    """What is said of a tensor of codes that the file does not have."""
    return Problem(
        site.removesuffix(CODES),
        "litert-torch leaves it in float, or changes its scale",
        expected="the integers of the graph",
        remedy="leave it in float in the policy, or write an .onnx file",
    )
