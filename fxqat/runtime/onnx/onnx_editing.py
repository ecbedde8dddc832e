"""An ONNX graph under change: its operations as a list in the order of execution, and who makes and reads a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper


class Editing:
    """The graph of ``proto``; ``close`` writes the changes back.

    Attributes:
        nodes: in the order of execution.
        shapes: sizes of each value by its name, 0 where one is free.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self.nodes = list(proto.graph.node)
        self.shapes = _shapes(proto)
        self._numbers = {one.name: one for one in proto.graph.initializer}
        self._index()

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The operation that computes ``name``; None for inputs and constants."""
        return self._makers.get(name)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The operations that take ``name``."""
        return self._readers.get(name, [])

    def number(self, name: str) -> np.ndarray | None:
        """The constant called ``name``, None where it is computed."""
        return numpy_helper.to_array(self._numbers[name]) if name in self._numbers else None

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant; gives its name."""
        self._numbers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(self._numbers[name])
        return name

    def replace(self, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
        """``new`` in the place of the last of ``old``."""
        gone = {id(node) for node in old}
        end = max(index for index, node in enumerate(self.nodes) if id(node) in gone)
        self.nodes[end:end] = new
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self._index()

    def close(self) -> None:
        """Write the nodes back, without those that nothing reads: ONNX Runtime would execute them."""
        while len(kept := [node for node in self.nodes if self._is_read(node)]) < len(self.nodes):
            self.nodes = kept
            self._index()
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        numbers = [one for name, one in self._numbers.items() if name in self._readers]
        kept_numbers = [onnx.TensorProto.FromString(one.SerializeToString()) for one in numbers]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept_numbers)

    def _is_read(self, node: onnx.NodeProto) -> bool:
        outputs = {value.name for value in self.graph.output}
        return any(name in self._readers or name in outputs for name in node.output)

    def _index(self) -> None:
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)


def attributes(node: onnx.NodeProto) -> Mapping[str, object]:
    """Attributes as Python values."""
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
