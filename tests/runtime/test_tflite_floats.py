"""What a converter rounded that the graph does not: computed in float again, and nothing else touched."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest

from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_floats import restore_floats

if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("no .tflite is written or run: ai_edge_litert is not installed", allow_module_level=True)

from tflite_files import File

from fxqat.runtime.tflite.litert_session import interpreter

COARSE, FINE = (0.5, 3), (1 / 256, -128)


def floats(name: str, *shape: int) -> tuple[str, tuple[int, ...], None, str]:
    return name, shape, None, "float32"


def opened(file: File, inputs: list[str], outputs: list[str]) -> TFLiteFile:
    return TFLiteFile(file.content(inputs, outputs))


def kinds(file: TFLiteFile) -> Counter[tuple[str, str]]:
    return file.operations()


def joined() -> File:
    """Coefficients that are codes, and scores and boxes that are not, joined in the coefficients' scale."""
    file = File()
    file.tensor("coefficients", (1, 4), COARSE)
    file.tensor(*floats("boxes", 1, 4))
    file.tensor("rounded boxes", (1, 4), COARSE)
    file.tensor("logits", (1, 4), (0.05, 0))
    file.tensor("scores", (1, 4), COARSE)
    file.tensor("all", (1, 12), COARSE)
    file.operation("QUANTIZE", ["boxes"], "rounded boxes")
    file.operation("LOGISTIC", ["logits"], "scores")
    file.operation("CONCATENATION", ["rounded boxes", "scores", "coefficients"], "all", axis=1)
    return file


def test_a_concat_of_floats_and_codes_is_float():
    source = joined()
    file = opened(source, ["boxes", "logits", "coefficients"], ["all"])
    restore_floats(file, [source.names.index(name) for name in ("coefficients", "logits")])
    assert kinds(file) == {("DEQUANTIZE", "float32"): 2, ("LOGISTIC", "float32"): 1, ("CONCATENATION", "float32"): 1}
    boxes = np.float32([[0.1, 0.2, 0.3, 0.7]])
    logits, coefficients = np.int8([[-100, -1, 0, 99]]), np.int8([[-128, 0, 3, 127]])
    (found,) = run(file, boxes, logits, coefficients)
    wanted = [boxes, 1 / (1 + np.exp(-0.05 * logits.astype(np.float32))), 0.5 * (coefficients.astype(np.float32) - 3)]
    assert np.abs(found - np.concatenate(wanted, 1)).max() < 2**-20  # of a sigmoid in float32


def run(file: TFLiteFile, *arrays: np.ndarray) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_content=file.content())
    opened.allocate_tensors()
    for detail, array in zip(opened.get_input_details(), arrays, strict=True):
        opened.set_tensor(detail["index"], array)
    opened.invoke()
    return [opened.get_tensor(detail["index"]) for detail in opened.get_output_details()]


def test_an_output_that_is_codes_is_dequantized():
    source = File()
    source.tensor("x", (1, 4), COARSE)
    source.tensor("gate", (1, 4), FINE)
    source.operation("LOGISTIC", ["x"], "gate")
    file = opened(source, ["x"], ["gate"])
    restore_floats(file, [0, 1])
    assert kinds(file) == {("LOGISTIC", "int8"): 1, ("DEQUANTIZE", "float32"): 1}
    (found,) = interpreter(file.content(), xnnpack=True)({"x": np.int8([[3, -128, 127, 4]])})
    assert found.tolist() == [[0.5, 0.0, 255 / 256, 159 / 256]]  # sigmoid(1/2) = 0.6225, 159.35 steps


def test_codes_that_are_moved_stay_codes():
    source = File()
    source.tensor("x", (1, 4), COARSE)
    source.tensor("sizes", (2,), None, "int32", data=[2, 2])
    source.tensor("folded", (2, 2), COARSE)
    source.tensor(*floats("values", 2, 2))
    source.operation("RESHAPE", ["x", "sizes"], "folded")
    source.operation("DEQUANTIZE", ["folded"], "values")
    file = opened(source, ["x"], ["values"])
    before = kinds(file)
    restore_floats(file, [0])
    assert kinds(file) == before


def test_a_scale_that_was_carried_back_is_given_where_the_graph_gives_it():
    """``y`` are the graph's codes of x's values, moved; the converter has given its scale to what is moved."""
    source = File()
    source.tensor("x", (1, 4), COARSE)
    source.tensor("early", (1, 4), (0.7, 1))
    source.tensor("sizes", (2,), None, "int32", data=[2, 2])
    source.tensor("y", (2, 2), (0.7, 1))
    source.tensor("other", (1, 4), (0.7, 1))
    source.tensor(*floats("values", 1, 4))
    source.operation("QUANTIZE", ["x"], "early")
    source.operation("RESHAPE", ["early", "sizes"], "y")
    source.operation("DEQUANTIZE", ["early"], "values")
    file = opened(source, ["x"], ["y", "values"])
    restore_floats(file, [0, source.names.index("y")])
    codes = np.int8([[-100, 0, 5, 127]])
    y, values = run(file, codes)
    exact = 0.5 * (codes.astype(np.float32) - 3)
    assert np.array_equal(values, exact), "what reads values has them as the graph has"
    steps = np.float32([-51.5, -1.5, 1, 62]) / np.float32(0.7)
    assert np.array_equal(y, np.rint(steps).reshape(2, 2) * np.float32(0.7)), "rounded once, where the graph rounds"


def test_an_integer_kernel_of_floats_is_no_file():
    source = joined()
    source.tensor("product", (1, 12), COARSE)
    source.operation("MUL", ["all", "all"], "product")
    file = opened(source, ["boxes", "logits", "coefficients"], ["product"])
    with pytest.raises(RuntimeError, match="product is made by MUL of floats"):
        restore_floats(file, [source.names.index(name) for name in ("coefficients", "logits", "product")])
