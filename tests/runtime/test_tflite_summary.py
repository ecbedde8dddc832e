"""What a .tflite file computes in float, and its share of the multiply-adds, counted by hand."""

from __future__ import annotations

import importlib.util

import pytest

from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_summary import float_operations

if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("no .tflite is written: ai_edge_litert is not installed", allow_module_level=True)

from tflite_files import File


def float32(name, *shape):
    return name, shape, None, "float32"


def test_shares():
    file = File()
    scale = (0.5, 0)
    file.tensor("x", (1, 8, 8, 4), scale)
    file.tensor("w", (6, 3, 3, 4), scale)
    file.tensor("y", (1, 4, 4, 6), scale)  # 6 * 9 * 4 * 16 = 3456
    file.tensor(*float32("values", 1, 4, 4, 6))
    file.tensor(*float32("by channel", 1, 5, 5, 6))
    file.tensor(*float32("z", 1, 4, 4, 6))  # 25 * 96 = 2400
    file.tensor(*float32("a", 2, 7, 3))
    file.tensor(*float32("b", 2, 7, 5))
    file.tensor(*float32("ab", 2, 3, 5))  # 7 * 30 = 210, a being transposed
    file.operation("CONV_2D", ["x", "w"], "y")
    file.operation("DEQUANTIZE", ["y"], "values")
    file.operation("DEPTHWISE_CONV_2D", ["values", "by channel"], "z")
    file.operation("BATCH_MATMUL", ["a", "b"], "ab", adjX=True)
    found = float_operations(TFLiteFile(file.content(["x", "a", "b"], ["z", "ab"])))
    assert found.counts == {"DEQUANTIZE": 1, "DEPTHWISE_CONV_2D": 1, "BATCH_MATMUL": 1}
    assert found.shares == {"DEPTHWISE_CONV_2D": 2400 / 6066, "BATCH_MATMUL": 210 / 6066}
    assert str(found) == (
        "in float in the file, 43.0% of the multiply-adds: 1 BATCH_MATMUL (3.5%), 1 DEPTHWISE_CONV_2D (39.6%), "
        "1 DEQUANTIZE"
    )


def test_a_file_without_floats():
    file = File()
    file.tensor("x", (1, 4), (0.5, 0))
    file.tensor("y", (1, 4), (1 / 256, -128))
    file.operation("LOGISTIC", ["x"], "y")
    found = float_operations(TFLiteFile(file.content(["x"], ["y"])))
    assert str(found) == "in float in the file, 0.0% of the multiply-adds: nothing"
