"""Files of one or two LiteRT operations, written with the schema that ai-edge-litert brings, and their execution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {"xnnpack": OpResolverType.AUTO, "litert": OpResolverType.BUILTIN_REF}
_TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}
_OPTIONS = {
    "MUL": "MulOptions",
    "ADD": "AddOptions",
    "CONV_2D": "Conv2DOptions",
    "QUANTIZE": "QuantizeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
}


class File:
    """A graph under construction; tensors are known by their names."""

    def __init__(self) -> None:
        self.graph, self.model = schema.SubGraphT(), schema.ModelT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.model.subgraphs = [self.graph]
        self.names: list[str] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        numbers: tuple[Any, int] | None = None,
        kind: str = "int8",
        data: Any = None,
    ) -> None:
        """A tensor, ``numbers`` being (scale or scales of axis 0, zero point)."""
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, [int(size) for size in shape], _TYPES[kind], 0
        if numbers is not None:
            scales = np.atleast_1d(np.float32(numbers[0])).tolist()
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = scales, [numbers[1]] * len(scales)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).astype(kind).tobytes(), np.uint8)
            made.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(made)
        self.names.append(name)

    def operation(self, kind: str, inputs: Sequence[str], output: str, **options: Any) -> None:
        """One operation."""
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 1 if kind == "RESHAPE" else 2
        made.opcodeIndex = len(self.model.operatorCodes)
        made.inputs, made.outputs = [self.names.index(name) for name in inputs], [self.names.index(output)]
        if kind in _OPTIONS:
            made.builtinOptions = getattr(schema, f"{_OPTIONS[kind]}T")()
            made.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[kind])
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(made)

    def content(self, inputs: Iterable[str], outputs: Sequence[str]) -> bytes:
        """The file that gives ``outputs`` for ``inputs``."""
        self.graph.inputs = [self.names.index(name) for name in inputs]
        self.graph.outputs = [self.names.index(name) for name in outputs]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def run(self, kernels: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """``outputs`` for ``inputs`` by LiteRT's ``kernels``: "xnnpack", or "litert" for its reference kernels."""
        content = self.content(inputs, outputs)
        interpreter = Interpreter(
            model_content=content, experimental_op_resolver_type=RESOLVERS[kernels], num_threads=1
        )
        interpreter.allocate_tensors()
        for detail, array in zip(interpreter.get_input_details(), inputs.values(), strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
