"""Floats that a converter made integers, made floats again.

litert-torch gives an operation of the graph that computes in float the scale of a neighbour that is codes: the Concat
of boxes, scores and mask coefficients that of the coefficients, in whose steps scores would then be rounded; what an
attention and a convolution read that of the convolution's input.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from fxqat.runtime.tflite.tflite_file import TFLiteFile

# What only moves codes, where its scales are the same.
_MOVES = frozenset(
    {
        *("PAD", "PADV2", "MIRROR_PAD", "TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BROADCAST_TO"),
        *("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "GATHER", "GATHER_ND", "CONCATENATION"),
        *("MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH"),
    }
)


def restore_floats(file: TFLiteFile, codes: Collection[int]) -> None:
    """Let every operation of ``file`` compute in float whose result is integer and neither one of ``codes`` nor codes
    that were moved, in place; outputs that are codes are dequantized.

    Args:
        file: as the converter wrote it.
        codes: tensors that are codes of the graph.

    Raises:
        RuntimeError: an integer kernel reads what the graph has in float.
    """
    _Restoration(file, codes).run()


class _Restoration:
    """One walk over the operations of a file in the order of execution.

    Attributes:
        codes: tensors known to be codes.
        values: the float tensor that has the values of a tensor that is or was integer; of one that was made float,
            itself.
        kept: the operations of the file to come.
    """

    def __init__(self, file: TFLiteFile, codes: Collection[int]) -> None:
        self.file = file
        self.codes = {*codes, *(index for index in file.graph.inputs if self._is_integer(index))}
        self.values, self.kept = dict[int, int](), list[Any]()

    def run(self) -> None:
        """Walk."""
        for operation in self.file.graph.operators:
            self._take(operation)
        self.file.graph.outputs = [self._value(index) for index in self.file.graph.outputs]
        self.file.graph.operators = self.kept

    def _take(self, operation: Any) -> None:
        kind, source, made = self.file.kind(operation), operation.inputs[0], operation.outputs[0]
        if self._makes_codes(operation, kind):
            self._make_codes(operation, kind)
        elif kind == "DEQUANTIZE" and source in self.codes.difference(self.values):
            self.values[source] = made
            self.kept.append(operation)
        elif kind in ("QUANTIZE", "DEQUANTIZE"):  # nothing between floats
            self.values[made] = self._value(source)
        else:
            self._compute(operation)

    def _makes_codes(self, operation: Any, kind: str) -> bool:
        made = list(operation.outputs)
        if self.codes.issuperset(made):
            return True
        read = [index for index in operation.inputs if index >= 0 and self._is_integer(index)]
        if kind not in _MOVES or not read or not all(map(self._is_integer, made)):
            return False
        are_codes = all(index in self.codes or self.file.constant(index) is not None for index in read)
        return are_codes and self._scales_agree([*read, *made])

    def _make_codes(self, operation: Any, kind: str) -> None:
        """Codes of floats are made by a QUANTIZE, behind the operation where it is another."""
        self.codes |= set(operation.outputs)
        if not any(index in self.values and index not in self.codes for index in operation.inputs):
            self.kept.append(operation)
            return
        if kind != "QUANTIZE" and (kind not in _MOVES or len(operation.outputs) > 1):
            raise RuntimeError(f"{self.file.name(operation.outputs[0])} is made by {kind} of floats")
        if kind == "QUANTIZE":
            operation.inputs = [self._value(operation.inputs[0])]
            self.kept.append(operation)
            return
        (made,) = operation.outputs
        operation.outputs = [self.file.add_tensor(f"value.{made}", made)]
        self._compute(operation)
        self.kept.append(self.file.operation("QUANTIZE", operation.outputs[0], made))

    def _compute(self, operation: Any) -> None:
        operation.inputs = [self._value(index) if index >= 0 else index for index in operation.inputs]
        for index in operation.outputs:
            if self._is_integer(index):
                self.file.make_float(index)
                self.values[index] = index
        self.kept.append(operation)

    def _value(self, index: int) -> int:
        """The float tensor that has the values of a tensor."""
        if index not in self.values and self._is_integer(index):
            self.values[index] = self.file.add_tensor(f"value.{index}", index)
            self.kept.append(self.file.operation("DEQUANTIZE", index, self.values[index]))
        return self.values.get(index, index)

    def _is_integer(self, index: int) -> bool:
        return self.file.type(index) == "int8" and self.file.scales(index) is not None

    def _scales_agree(self, indices: list[int]) -> bool:
        found = [one for index in indices if (one := self.file.scales(index)) is not None]
        return all(np.array_equal(one[part], found[0][part]) for one in found for part in (0, 1))
