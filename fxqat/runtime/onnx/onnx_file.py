"""ONNX files from anywhere: read, and checked before a runtime sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from fxqat.errors import Problem

_EXPECTED = "a file written by fxqat export"
_MOST = 1 << 31  # numbers of a batch of images: 8 GiB as float32


def read(path: Path) -> onnx.ModelProto:
    """A file with one input, and constants as large as they say.

    Raises:
        Problem: it is missing, no ONNX file, or damaged.
    """
    if not path.is_file():
        raise Problem(path, "no such file", expected="an .onnx file", remedy="run fxqat export first")
    try:
        proto = onnx.load(path)
        check(proto, path)
    except Problem:
        raise
    except Exception as error:  # protobuf has types of its own, and names may be no UTF-8
        raise Problem(path, "is not an ONNX file", expected=_EXPECTED) from error
    return proto


def check(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model without nodes, with words that are no text, with other than one input, with images that no memory
    holds, or with a constant that is not as large as it says.

    Raises:
        Problem: saying which.
    """
    graph = proto.graph
    if not graph.node or not graph.output:
        raise Problem(path, "is not an ONNX file", expected=_EXPECTED)
    if not all(isinstance(word, str) for word in _words(proto)):  # protobuf gives what is no UTF-8 as bytes
        raise Problem(path, "is damaged: a name or the metadata are no text", expected=_EXPECTED)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]  # files of IR 3 list constants as inputs too
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        raise Problem(path, f"has {len(inputs)} inputs", expected="one, for images")
    sizes = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim]
    if math.prod(size for size in sizes if size > 0) > _MOST:
        raise Problem(path, f"takes images of sizes {sizes}", expected="a batch that fits into memory")
    for tensor in graph.initializer:
        if not _is_whole(tensor):
            raise Problem(path, f"is damaged: constant {tensor.name!r} is not as large as it says", expected=_EXPECTED)


def _words(proto: onnx.ModelProto) -> Iterator[object]:
    graph = proto.graph
    yield from (word for entry in proto.metadata_props for word in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    yield from (one.name for part in (graph.initializer, graph.input, graph.output) for one in part)


def _is_whole(tensor: TensorProto) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL or not tensor.HasField("raw_data"):
        return _is_readable(tensor)
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return False
    sizes = list(tensor.dims)
    # 4-bit and smaller types share bytes, and numpy holds each in one of its own
    return min(sizes, default=0) >= 0 and len(tensor.raw_data) in _lengths(math.prod(sizes), kind.itemsize)


def _lengths(count: int, size: int) -> tuple[int, ...]:
    return (count * size,) if size > 1 else (count, (count + 1) // 2, (count + 3) // 4)


def _is_readable(tensor: TensorProto) -> bool:
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, onnx.checker.ValidationError):
        return False
    return True
