"""The border of an exported file: images as the bytes that they are, instead of floats in 0..1."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fxqat.errors import Problem
from fxqat.graph.site import nearest

INPUTS = ("float", "uint8", "uint8-nhwc")
SAYS = {
    "float": "float32 NCHW, RGB in 0..1",
    "uint8": "uint8 NCHW, RGB in 0..255",
    "uint8-nhwc": "uint8 NHWC, RGB in 0..255",
}


def check_input(form: str) -> None:
    """Refuse what is none of ``INPUTS``.

    Raises:
        Problem: with the nearest.
    """
    if form not in INPUTS:
        known = ", ".join(INPUTS)
        raise Problem("--input", f"unknown form {form!r}", expected=f"one of: {known}", remedy=nearest(form, INPUTS))


def take_bytes(proto: onnx.ModelProto, form: str) -> None:
    """Let the graph's input be bytes 0..255, in place.

    The first quantizer's scale is 1/255 and its zero point 0 where a target rounds images to uint8: its codes are the
    bytes, so it is dropped and no operation on floats is left. Else the bytes are divided by 255, exactly what the
    caller of a float file does.

    Args:
        proto: with one input (B, 3, H, W) float32.
        form: "uint8", or "uint8-nhwc" for (B, H, W, 3), as cameras deliver.
    """
    graph = proto.graph
    (source,) = graph.input
    source.type.tensor_type.elem_type = TensorProto.UINT8
    before = [_transposed(source)] if form == "uint8-nhwc" else []
    bytes_name = before[0].output[0] if before else source.name
    numbers = {one.name: one for one in graph.initializer}
    readers = [node for node in graph.node if source.name in node.input]
    exact = [node for node in readers if _keeps_bytes(node, numbers)]
    names = {node.output[0]: bytes_name for node in exact} | {source.name: bytes_name}
    if any(node not in exact and node.op_type != "Shape" for node in readers):
        before += _divided(graph, bytes_name)
        names[source.name] = before[-1].output[0]
    nodes = [node for node in graph.node if node not in exact]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend([*before, *nodes])
    _drop_unused(graph)


def _transposed(source: onnx.ValueInfoProto) -> onnx.NodeProto:
    dims = source.type.tensor_type.shape.dim
    sizes = [onnx.TensorShapeProto.Dimension() for _ in range(4)]
    for size, axis in zip(sizes, (0, 2, 3, 1), strict=True):
        size.CopyFrom(dims[axis])
    del dims[:]
    dims.extend(sizes)
    return helper.make_node(
        "Transpose", [source.name], [f"{source.name}.nchw"], perm=[0, 3, 1, 2], name=f"{source.name}.nchw"
    )


def _keeps_bytes(node: onnx.NodeProto, numbers: dict[str, onnx.TensorProto]) -> bool:
    """Whether ``node`` turns byte / 255 into the code byte, for every byte."""
    if node.op_type != "QuantizeLinear" or any(name not in numbers for name in node.input[1:3]):
        return False
    scale, *zeros = (numpy_helper.to_array(numbers[name]) for name in node.input[1:3])
    is_zero = all(zero.dtype == np.uint8 and int(zero) == 0 for zero in zeros)  # left out, it is the byte 0
    return is_zero and float(scale) == float(np.float32(1 / 255))


def _divided(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    largest = f"{name}.largest"
    graph.initializer.append(numpy_helper.from_array(np.float32(255), largest))
    return [
        helper.make_node("Cast", [name], [f"{name}.cast"], to=TensorProto.FLOAT, name=f"{name}.cast"),
        helper.make_node("Div", [f"{name}.cast", largest], [f"{name}.unit"], name=f"{name}.unit"),
    ]


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
