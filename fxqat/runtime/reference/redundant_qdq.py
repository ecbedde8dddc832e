"""Removal of redundant Q/DQ pairs around operations that only move values, for runtimes that would compute them."""

from __future__ import annotations

from typing import Any

from torch import fx

from fxqat.graph.site import module_of, operation, site_of
from fxqat.models.families.opaque import Opaque
from fxqat.quant.torch_ao import dequantize_per_tensor, quantize_per_tensor
from fxqat.runtime.reference.fused_kernels import OPERANDS
from fxqat.targets import Place, Target

_MOVES = (Place.SAME, Place.SHARED)
# What moves values as well, but no kernel on codes is known for.
_REARRANGES = frozenset({"transpose", "permute", "unflatten", "unsqueeze", "squeeze"})
Numbers = tuple[Any, ...]


def as_exported(gm: fx.GraphModule, target: Target | None) -> fx.GraphModule:
    """``gm``, at stage ``int8``, with only the quantize operations that a file for ``target`` needs; in place."""
    if target is not None and not target.restates:
        move_ranges(gm, target)
    elif target is not None and not target.restates_for_floats:
        drop_before_others(gm, target)
    return gm


def move_ranges(gm: fx.GraphModule, target: Target) -> int:
    """Remove, in place, the quantize/dequantize pair after an operation that only moves values, if its scale is that of
    the inputs: ``dequantize(quantize(v))`` is then v, bit for bit.

    The reference graph has these pairs, because ONNX Runtime executes a Concat or MaxPool on integers only between a
    dequantize and a quantize. OpenVINO needs none, and would execute each pair as an operation of its own.

    Args:
        gm: at stage ``int8``.
        target: says which operations only move values.

    Returns:
        The number of pairs removed.
    """
    known: dict[fx.Node, Numbers | None] = {}
    taken = 0
    for node in list(gm.graph.nodes):
        known[node] = _numbers(node, known, target)
        source = node.args[0] if node.target is quantize_per_tensor else None
        if (
            isinstance(source, fx.Node)
            and known[source] == node.args[1:]
            and source.target is not dequantize_per_tensor
        ):
            for reader in list(node.users):
                reader.replace_all_uses_with(source)
            taken += 1
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return taken


def drop_before_others(gm: fx.GraphModule, target: Target) -> int:
    """Take out, in place, every quantize and dequantize behind an operation that only moves values of the same scale,
    where no integer kernel reads the values, and moved further they are quantized in another scale.
    ``dequantize(quantize(v))`` is v, bit for bit.

    Args:
        gm: at stage ``int8``.
        target: says which operations only move values.

    Returns:
        How many pairs were taken out.
    """
    known: dict[fx.Node, Numbers | None] = {}
    taken = 0
    for node in list(gm.graph.nodes):
        known[node] = _numbers(node, known, target)
    for node in reversed(list(gm.graph.nodes)):
        source = node.args[0] if node.target is quantize_per_tensor else None
        if (
            isinstance(source, fx.Node)
            and source.target is not dequantize_per_tensor
            and known[source] == node.args[1:]
        ):
            readers = [
                reader
                for reader in node.users
                if not any(_wants_codes(user, node.args[1:]) for user in reader.users)
                and _is_quantized_later(reader, target)
            ]
            for reader in readers:
                reader.replace_all_uses_with(source)
            taken += len(readers)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return taken


def _wants_codes(node: fx.Node, numbers: Numbers) -> bool:
    """Whether a kernel computes ``node`` on codes, or moves codes of these numbers."""
    same = (user.target is quantize_per_tensor and user.args[1:] == numbers for user in node.users)
    return node.target in OPERANDS or any(same)


def _is_quantized_later(node: fx.Node, target: Target) -> bool:
    """Whether values of ``node``, or these moved, are quantized."""
    moved = [user for user in node.users if _rearranges(user) or _moves(user, target)]
    quantized = any(user.target is quantize_per_tensor for user in node.users)
    return quantized or any(_is_quantized_later(user, target) for user in moved)


def _rearranges(node: fx.Node) -> bool:
    made = module_of(node) if node.op == "call_module" else None
    return made.moves if isinstance(made, Opaque) else operation(node) in _REARRANGES


def _moves(node: fx.Node, target: Target) -> bool:
    return operation(node) in target.operations and target.place(operation(node), site_of(node)) in _MOVES


def _numbers(node: fx.Node, known: dict[fx.Node, Numbers | None], target: Target) -> Numbers | None:
    """The quantization parameters (scale, zero point, limits, dtype) that all values of ``node`` have; None if there
    are none or several."""
    if node.target is dequantize_per_tensor:
        return tuple(node.args[1:])
    if node.op in {"placeholder", "output", "get_attr"} or node.target is quantize_per_tensor:
        return None
    sources = {known[one] for one in node.all_input_nodes}
    return sources.pop() if _moves(node, target) and len(sources) == 1 else None
