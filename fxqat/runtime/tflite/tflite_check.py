"""What a .tflite model must be before LiteRT sees it: its kernels trust the indices and sizes of a file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_SIZES = {"FLOAT32": 4, "INT32": 4, "INT8": 1, "UINT8": 1, "INT64": 8, "FLOAT16": 2, "INT16": 2, "BOOL": 1}


def faults(model: Any, schema: Any) -> Iterator[str]:
    """What is wrong with a model of one subgraph, each in a clause.

    Args:
        model: ``ModelT`` of the schema.
        schema: the module that the schema was compiled to.
    """
    if not model.subgraphs or not model.operatorCodes or not model.buffers:
        yield "has no graph"
        return
    graph = model.subgraphs[0]
    if not graph.tensors or not graph.operators:
        yield "has no graph"
        return
    yield from _ends(graph)
    for operation in graph.operators:
        yield from _operation(operation, model, graph)
    for index, tensor in enumerate(graph.tensors):
        yield from _tensor(f"tensor {index}", tensor, model, schema)


def _ends(graph: Any) -> Iterator[str]:
    for name in ("inputs", "outputs"):
        found = _list(getattr(graph, name))
        if not found or not _are_within(found, len(graph.tensors)):
            yield f"its {name} are not tensors"


def _operation(operation: Any, model: Any, graph: Any) -> Iterator[str]:
    if not 0 <= operation.opcodeIndex < len(model.operatorCodes):
        yield "an operation is of no kind"
    inputs, outputs = _list(operation.inputs), _list(operation.outputs)
    given = [one for one in inputs if one != -1]  # an operand that is left out
    if not outputs or not _are_within([*given, *outputs], len(graph.tensors)):
        yield "an operation reads or makes what is no tensor"


def _tensor(where: str, tensor: Any, model: Any, schema: Any) -> Iterator[str]:
    shape = [int(size) for size in _list(tensor.shape)]  # numpy's products overflow
    if not _is_text(tensor.name or b""):
        yield f"{where} has a name that is no text"
    if any(size < 0 for size in shape) or math.prod(shape) >= 2**31:
        yield f"{where} has shape {shape}"
    if not 0 <= tensor.buffer < len(model.buffers):
        yield f"{where} has no buffer"
        return
    data = model.buffers[tensor.buffer].data
    sizes = {getattr(schema.TensorType, kind): size for kind, size in _SIZES.items()}
    if data is not None and len(data) and len(data) != math.prod(shape) * sizes.get(tensor.type, 0):
        yield f"{where} is not as large as it says"
    if tensor.quantization is not None and not _are_scales(tensor.quantization):
        yield f"{where} has a scale that is none"


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _are_scales(numbers: Any) -> bool:
    scales = np.asarray(_list(numbers.scale), np.float64)
    zeros = _list(numbers.zeroPoint)
    return bool(np.isfinite(scales).all() and (scales >= 0).all()) and len(zeros) in {len(scales), 0}


def _are_within(indices: list[int], count: int) -> bool:
    return all(0 <= index < count for index in indices)


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)
