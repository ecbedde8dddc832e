"""What of a .tflite file computes in float, and its share of the multiply-adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fxqat.runtime.tflite.tflite_file import TFLiteFile


@dataclass(frozen=True, kw_only=True)
class FloatOperations:
    """Operations of a file whose result is float32.

    Attributes:
        counts: how many there are of each kind.
        shares: of all multiply-adds, 0..1, by the kind of those that multiply.
    """

    counts: Mapping[str, int]
    shares: Mapping[str, float]

    @property
    def share(self) -> float:
        """Of all multiply-adds, 0..1."""
        return sum(self.shares.values())

    def __str__(self) -> str:
        words = ", ".join(f"{count} {kind}{self._share(kind)}" for kind, count in sorted(self.counts.items()))
        return f"in float in the file, {self.share:.1%} of the multiply-adds: {words or 'nothing'}"

    def _share(self, kind: str) -> str:
        return f" ({self.shares[kind]:.1%})" if kind in self.shares else ""


def float_operations(file: TFLiteFile) -> FloatOperations:
    """The float operations of ``file``."""
    counts, macs, total = Counter[str](), Counter[str](), 0
    for operation in file.graph.operators:
        kind = file.kind(operation)
        count = _MULTIPLY_ADDS[kind](file, operation) if kind in _MULTIPLY_ADDS else 0
        total += count
        if file.type(operation.outputs[0]) == "float32":
            counts[kind] += 1
            macs[kind] += count
    return FloatOperations(counts=counts, shares={kind: count / total for kind, count in macs.items() if count})


def _per_result(file: TFLiteFile, operation: Any, products: int) -> int:
    return products * prod(file.shape(operation.outputs[0]))


def _of_weight(file: TFLiteFile, operation: Any) -> int:
    """A convolution's or a linear layer's: its weight is (O, ...)."""
    return _per_result(file, operation, prod(file.shape(operation.inputs[1])[1:]))


def _by_channel(file: TFLiteFile, operation: Any) -> int:
    """Of a convolution by channel: its weight is (1, H, W, O)."""
    return _per_result(file, operation, prod(file.shape(operation.inputs[1])[1:-1]))


def _transposed(file: TFLiteFile, operation: Any) -> int:
    """Of a transposed convolution: its weight is (O, H, W, I), and every input meets all of its I's share."""
    outputs, height, width, _ = file.shape(operation.inputs[1])
    return outputs * height * width * prod(file.shape(operation.inputs[2]))


def _of_matrices(file: TFLiteFile, operation: Any) -> int:
    """Of a product of matrices, the first of which is (..., M, K), or (..., K, M) where it is taken transposed."""
    is_transposed = bool(operation.builtinOptions is not None and operation.builtinOptions.adjX)
    return _per_result(file, operation, file.shape(operation.inputs[0])[-2 if is_transposed else -1])


_MULTIPLY_ADDS: Mapping[str, Callable[[TFLiteFile, Any], int]] = {
    "CONV_2D": _of_weight,
    "FULLY_CONNECTED": _of_weight,
    "DEPTHWISE_CONV_2D": _by_channel,
    "TRANSPOSE_CONV": _transposed,
    "BATCH_MATMUL": _of_matrices,
}
