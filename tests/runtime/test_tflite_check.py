"""What a .tflite model must be before LiteRT sees it, on models put together by hand; no LiteRT is needed."""

from __future__ import annotations

from types import SimpleNamespace as Made

import numpy as np
import pytest

from fxqat.runtime.tflite.tflite_check import faults

SCHEMA = Made(TensorType=Made(FLOAT32=0, FLOAT16=1, INT32=2, UINT8=3, INT64=4, BOOL=6, INT16=7, INT8=9))


def model():
    """One operation on an image and a constant of 6 bytes."""
    scale = Made(scale=np.array([0.5, 0.25]), zeroPoint=np.array([0, 0]))
    tensors = [
        Made(shape=np.array([1, 4, 4, 3]), type=0, buffer=0, name=b"images", quantization=None),
        Made(shape=np.array([2, 3]), type=9, buffer=1, name=None, quantization=scale),
        Made(shape=np.array([1, 2]), type=0, buffer=0, name=b"out", quantization=Made(scale=None, zeroPoint=None)),
    ]
    operation = Made(opcodeIndex=0, inputs=[0, 1, -1], outputs=[2])  # -1: an operand that is left out
    graph = Made(tensors=tensors, operators=[operation], inputs=[0], outputs=[2])
    buffers = [Made(data=None), Made(data=np.zeros(6, np.uint8))]
    return Made(subgraphs=[graph], operatorCodes=[Made()], buffers=buffers)


def put(path, value):
    """A change of the attribute at a dotted path."""

    def change(made):
        *way, last = path.split(".")
        for word in way:
            made = made[int(word)] if word.isdigit() else getattr(made, word)
        setattr(made, last, value)

    return change


def test_a_whole_model_has_no_fault():
    assert list(faults(model(), SCHEMA)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("subgraphs", None), "has no graph"),
        (put("subgraphs.0.operators", []), "has no graph"),
        (put("subgraphs.0.inputs", [3]), "its inputs are not tensors"),
        (put("subgraphs.0.outputs", None), "its outputs are not tensors"),
        (put("subgraphs.0.operators.0.opcodeIndex", 1), "an operation is of no kind"),
        (put("subgraphs.0.operators.0.inputs", [0, 9]), "an operation reads or makes what is no tensor"),
        (put("subgraphs.0.operators.0.inputs", [0, -2]), "an operation reads or makes what is no tensor"),
        (put("subgraphs.0.operators.0.outputs", []), "an operation reads or makes what is no tensor"),
        (put("subgraphs.0.tensors.1.shape", [2, 4]), "tensor 1 is not as large as it says"),
        (put("subgraphs.0.tensors.1.type", 0), "tensor 1 is not as large as it says"),
        (put("subgraphs.0.tensors.0.shape", [1, -4]), "tensor 0 has shape [1, -4]"),
        # products that do not fit the type in which the schema's reader gives sizes
        (put("subgraphs.0.tensors.0.shape", np.full(4, 2**16, np.int32)), f"tensor 0 has shape {[2**16] * 4}"),
        (put("subgraphs.0.tensors.0.buffer", 2), "tensor 0 has no buffer"),
        (put("subgraphs.0.tensors.2.name", b"\xdb\x28"), "tensor 2 has a name that is no text"),
        (put("subgraphs.0.tensors.1.quantization.scale", [0.5, -1.0]), "tensor 1 has a scale that is none"),
        (put("subgraphs.0.tensors.1.quantization.scale", [0.5, float("nan")]), "tensor 1 has a scale that is none"),
        (put("subgraphs.0.tensors.1.quantization.zeroPoint", [0]), "tensor 1 has a scale that is none"),
    ],
)
def test_every_fault_is_told(change, says):
    made = model()
    change(made)
    assert list(faults(made, SCHEMA)) == [says]
