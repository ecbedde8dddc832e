"""A .tflite file under change: its tensors, the operations that make them, and its metadata."""

from __future__ import annotations

import importlib.util
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fxqat.errors import Problem
from fxqat.runtime.tflite.tflite_check import faults

MISSING = "pip install 'fxqat[litert]'"
_METADATA = "metadata.json"  # what Ultralytics' loader looks for in the zip at the file's end
# What the schema's reader raises where offsets and lengths lead out of the file, or to something else; and the zip's.
_DAMAGED = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
_ALIGNMENT = 16  # of a buffer, as the schema asks; kernels read them as they lie in the file


def _metadata(path: Path) -> Mapping[str, Any]:
    """What the zip behind a model says; nothing where there is none, or none of ours."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        found = json.loads(archive.read(_METADATA)) if _METADATA in archive.namelist() else {}
    return found if isinstance(found, dict) else {}


def is_installed(package: str) -> bool:
    """Whether a package is here."""
    return importlib.util.find_spec(package) is not None


def check_installed(package: str, where: str) -> None:
    """Refuse where a package of the extra ``litert`` is missing.

    Raises:
        Problem: with the command that installs it.
    """
    if not is_installed(package):
        raise Problem(where, f"{package.replace('_', '-')} is not installed", remedy=MISSING)


class TFLiteFile:
    """The first subgraph of a model. Tensors are known by their indices.

    Attributes:
        model: the schema's own object, which may be changed in place.
        metadata: what Ultralytics' loader reads.
    """

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self.model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        _bring_in(self.model, content)
        self.metadata: Mapping[str, Any] = {}
        self._kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}

    @classmethod
    def read(cls, path: Path) -> TFLiteFile:
        """The file at ``path``.

        Raises:
            Problem: it is missing, no .tflite file, or damaged.
        """
        if not path.is_file():
            raise Problem(path, "no such file", expected="a .tflite file", remedy="run fxqat export first")
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise Problem(path, "is not a .tflite file", expected="a file written by fxqat export")
        check_installed("ai_edge_litert", str(path))
        try:
            file = cls(content)
            file.metadata = _metadata(path)
        except _DAMAGED as error:
            raise Problem(path, f"is damaged ({error})", expected="a file written by fxqat export") from error
        if fault := next(faults(file.model, file._schema), None):
            raise Problem(path, f"is damaged: {fault}", expected="a file written by fxqat export")
        return file

    @property
    def graph(self) -> Any:
        """The first subgraph."""
        return self.model.subgraphs[0]

    def kind(self, operation: Any) -> str:
        """The builtin operation, such as ``CONV_2D``."""
        code = self.model.operatorCodes[operation.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return self._kinds.get(number, f"OPERATOR_{number}")  # of a later schema, or damaged: LiteRT refuses it

    def made(self) -> Iterator[tuple[int, str]]:
        """Inputs, as INPUT, and what operations make, in the order of execution, each with the operation's kind."""
        yield from ((index, "INPUT") for index in self.graph.inputs)
        for operation in self.graph.operators:
            yield from ((index, self.kind(operation)) for index in operation.outputs)

    def operations(self) -> Counter[tuple[str, str]]:
        """How many operations there are of each kind and type of what they make: ``("CONV_2D", "int8")``."""
        return Counter((self.kind(one), self.type(one.outputs[0])) for one in self.graph.operators)

    def type(self, index: int) -> str:
        """The type of a tensor's elements by numpy's name."""
        schema = self._schema.TensorType
        names = {schema.INT8: "int8", schema.UINT8: "uint8", schema.FLOAT32: "float32", schema.INT32: "int32"}
        return names.get(self.graph.tensors[index].type, "other")

    def shape(self, index: int) -> tuple[int, ...]:
        """The sizes of a tensor, none for a scalar."""
        sizes = self.graph.tensors[index].shape
        return () if sizes is None else tuple(int(size) for size in sizes)

    def scales(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Scales and zero points of a tensor, None for one that is not quantized."""
        numbers = self.graph.tensors[index].quantization
        if numbers is None or numbers.scale is None or not len(numbers.scale):
            return None
        return np.asarray(numbers.scale, np.float32), np.asarray(numbers.zeroPoint, np.int64)

    def constant(self, index: int) -> np.ndarray | None:
        """A constant's values, None where a tensor is computed."""
        data = self.model.buffers[self.graph.tensors[index].buffer].data
        if data is None:
            return None
        return np.asarray(data, np.uint8).view(self.type(index)).reshape(self.shape(index))

    def set_constant(self, index: int, value: np.ndarray) -> None:
        """Give a constant other values, in a buffer of its own."""
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)

    def rename(self, index: int, name: str) -> None:
        """Call a tensor ``name``."""
        self.graph.tensors[index].name = name.encode()

    def name(self, index: int) -> str:
        """A tensor's name; empty where it has none."""
        return bytes(self.graph.tensors[index].name or b"").decode()

    def quantize_input(self, kind: str, numbers: tuple[float, int] | None) -> None:
        """Let the only input be of ``kind``, ``float32`` or ``uint8``, with a QUANTIZE in front of what it was.

        Args:
            kind: numpy's name of the type.
            numbers: scale and zero point of the new input, None for floats.
        """
        (old,) = self.graph.inputs
        new = self.add_tensor("input", old, kind)
        if numbers is not None:
            form = self._schema.QuantizationParametersT()
            form.scale, form.zeroPoint = [numbers[0]], [numbers[1]]
            self.graph.tensors[new].quantization = form
        self.graph.inputs = [new]
        self.graph.operators.insert(0, self.operation("QUANTIZE", new, old))

    def add_tensor(self, name: str, like: int, kind: str = "float32") -> int:
        """The index of a new tensor of the sizes of ``like``, ``kind`` being numpy's name of its type."""
        new, old = self._schema.TensorT(), self.graph.tensors[like]
        new.name, new.shape, new.buffer = name.encode(), old.shape, 0
        new.type = getattr(self._schema.TensorType, kind.upper())
        new.shapeSignature, new.hasRank = old.shapeSignature, True
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def operation(self, kind: str, source: int, made: int) -> Any:
        """A new operation without options, of one input and one output, which stands nowhere yet."""
        code, operation = self._schema.OperatorCodeT(), self._schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self._schema.BuiltinOperator, kind)
        code.version = 2  # of QUANTIZE and DEQUANTIZE, the first that know int8
        operation.opcodeIndex, operation.inputs, operation.outputs = len(self.model.operatorCodes), [source], [made]
        self.model.operatorCodes.append(code)
        return operation

    def make_float(self, index: int) -> None:
        """Let a tensor that is computed hold float32."""
        tensor = self.graph.tensors[index]
        tensor.type, tensor.quantization = self._schema.TensorType.FLOAT32, None

    def name_ends(self, source: str, results: Sequence[str]) -> None:
        """Name the only input and the outputs, also for those who ask the file's signature."""
        indices = [*self.graph.inputs, *self.graph.outputs]
        for index, name in zip(indices, (source, *results), strict=True):
            self.rename(index, name)
        (signature,) = self.model.signatureDefs
        for entry, index in zip((*signature.inputs, *signature.outputs), indices, strict=True):
            entry.name, entry.tensorIndex = self.graph.tensors[index].name, index

    def content(self) -> bytes:
        """The model as bytes, without metadata."""
        builder = _builder()
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def write(self, path: Path) -> None:
        """Write the model, and the metadata as a zip behind it, which readers of either do not see."""
        path.write_bytes(self.content())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(_METADATA), json.dumps(self.metadata))


def _bring_in(model: Any, content: bytes) -> None:
    """Put the numbers into the model that its file holds behind the model, as AI Edge Quantizer writes them (a buffer's
    ``offset`` and ``size`` in the schema): packed again, the model would be without them.

    Raises:
        ValueError: they would stand outside of the file.
    """
    for number, buffer in enumerate(model.buffers or []):
        if buffer.offset <= 1:  # 0: it has none; 1: a placeholder
            continue
        end = buffer.offset + buffer.size
        if end > len(content):
            raise ValueError(f"buffer {number} ends at byte {end} of {len(content)}")
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0


def channels_last(file: TFLiteFile) -> set[int]:
    """The tensors whose channels are the last axis: images, what convolutions and their like make, and what is computed
    from these up to a TRANSPOSE that moves the channels."""
    found = set(file.graph.inputs)
    for operation in file.graph.operators:
        kind, source = file.kind(operation), operation.inputs[0]
        is_last = kind in _LAST or source in found
        if kind == "TRANSPOSE" and (order := file.constant(operation.inputs[1])) is not None:
            is_last = (order[-1] == 1) or (is_last and order[-1] == len(order) - 1)
        found |= set(operation.outputs) if is_last else set()
    return found


_LAST = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"}
)


def _builder() -> Any:
    """A builder that aligns buffers as the schema asks, which the generated code does not, and writes equal vectors
    once: the zero points of weights and biases are a thirtieth of a small detector's file."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(1 << 20)
            self.written: dict[tuple[str, bytes], int] = {}

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            is_buffer = elemSize == 1
            return super().StartVector(elemSize, numElems, max(alignment, _ALIGNMENT if is_buffer else 1))

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            key = x.dtype.str, x.tobytes()
            if key not in self.written:
                self.written[key] = super().CreateNumpyVector(x)
            return self.written[key]

    return Builder()
