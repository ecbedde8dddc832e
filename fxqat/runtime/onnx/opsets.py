"""Opsets: a graph of the newest one written for runtimes that stop at an older one, with the lowest IR version.

Scales per channel exist from opset 13 (DequantizeLinear's ``axis``). What a file needs of later opsets is spelled as
the older one has it, operation by operation; the checker of onnx then judges the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
from onnx import defs, helper, numpy_helper

from fxqat.errors import Problem

WRITTEN = 20
"""The opset that files are made in before they are rewritten."""
OPSETS = range(13, 22)


def to_opset(proto: onnx.ModelProto, opset: int) -> None:
    """Rewrite ``proto``, of opset 20, in place.

    Raises:
        Problem: it has an operation that ``opset`` lacks, or cannot spell; with the lowest opset that can.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    sizes = _sizes(proto) if opset < WRITTEN else {}
    for node in proto.graph.node:
        if opset < WRITTEN and node.domain == "":
            _spell(node, opset, constants, sizes)
    imports = [entry for entry in proto.opset_import if entry.domain]
    del proto.opset_import[:]
    proto.opset_import.extend([helper.make_opsetid("", opset), *imports])
    proto.ir_version = helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)


Sizes = Mapping[str, list[int]]
Constants = Mapping[str, onnx.TensorProto]


def _spell(node: onnx.NodeProto, opset: int, constants: Constants, sizes: Sizes) -> None:
    try:
        schema = defs.get_schema(node.op_type, opset)
    except defs.SchemaError as error:
        raise _lacking(node, node.op_type) from error
    newest = defs.get_schema(node.op_type, WRITTEN)
    for attribute in list(node.attribute):
        if attribute.name in schema.attributes:
            continue
        adapt = _ADAPTERS.get((node.op_type, attribute.name))
        if attribute == newest.attributes[attribute.name].default_value or (
            adapt is not None and adapt(node, attribute, constants, sizes)
        ):
            node.attribute.remove(attribute)
        else:
            raise _lacking(node, f"{node.op_type} with {attribute.name}")
    if len(node.input) > schema.max_input:
        raise _lacking(node, f"{node.op_type} of {len(node.input)} inputs")


def _lacking(node: onnx.NodeProto, what: str) -> Problem:
    """The Problem of an operation that an opset cannot say."""
    since = defs.get_schema(node.op_type, WRITTEN).since_version
    return Problem("--opset", f"{what} at {node.name or node.output[0]} is too new for it", expected=f"{since} or more")


def _explicit_sizes(node: onnx.NodeProto, count: onnx.AttributeProto, constants: Constants, sizes: Sizes) -> bool:
    """Split into ``num_outputs`` equal parts (opset 18) is what Split without sizes does, where they are equal."""
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    known = sizes.get(node.input[0], [])
    return bool(known) and known[axis] > 0 and known[axis] % count.i == 0


def _no_zero(node: onnx.NodeProto, allow: onnx.AttributeProto, constants: Constants, sizes: Sizes) -> bool:
    """Reshape's ``allowzero`` (opset 14) says nothing about a shape without a 0."""
    shape = constants.get(node.input[1])
    return shape is not None and bool((numpy_helper.to_array(shape) != 0).all())


_ADAPTERS: Mapping[tuple[str, str], Callable[[onnx.NodeProto, onnx.AttributeProto, Constants, Sizes], bool]] = {
    ("Split", "num_outputs"): _explicit_sizes,
    ("Reshape", "allowzero"): _no_zero,
}


def _sizes(proto: onnx.ModelProto) -> Sizes:
    """Sizes of each value, 0 where one is free."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.input]
    }
