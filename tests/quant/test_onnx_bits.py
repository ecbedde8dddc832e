"""Bit for bit the arithmetic of ONNX: the reference implementation and ONNX Runtime, aimed at rounding ties."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from strategies import beside_ties
from torch import Tensor

from fxqat.quant.affine import dequantize, fake_quantize, quantize
from fxqat.quant.gradients import forward_values
from fxqat.quant.spec import QParams

TYPES = {torch.int8: TensorProto.INT8, torch.uint8: TensorProto.UINT8}
LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "on": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@functools.cache
def model(dtype: torch.dtype, axis: int | None) -> bytes:
    """X, scale, zero point -> codes, values."""
    shape = [None] if axis is None else [None, None]
    of = [] if axis is None else [None]
    floats, codes = TensorProto.FLOAT, TYPES[dtype]
    attributes = {} if axis is None else {"axis": axis}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
        ],
        "qdq",
        [
            helper.make_tensor_value_info("x", floats, shape),
            helper.make_tensor_value_info("s", floats, of),
            helper.make_tensor_value_info("z", codes, of),
        ],
        [helper.make_tensor_value_info("q", codes, shape), helper.make_tensor_value_info("y", floats, shape)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@functools.cache
def session(dtype: torch.dtype, axis: int | None, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model(dtype, axis), options, providers=["CPUExecutionProvider"])


@functools.cache
def reference(dtype: torch.dtype, axis: int | None) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(model(dtype, axis)))


def feeds(x: Tensor, qparams: QParams) -> dict[str, np.ndarray]:
    scale, zero_point = qparams.scale.numpy(), qparams.zero_point.to(qparams.dtype).numpy()
    if qparams.axis is None:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    return {"x": x.numpy(), "s": scale, "z": zero_point}


def check(x: Tensor, qparams: QParams, *, with_reference: bool = True) -> None:
    fed = feeds(x, qparams)
    answers = {level: session(qparams.dtype, qparams.axis, level).run(None, fed) for level in LEVELS}
    if with_reference:
        answers["reference"] = reference(qparams.dtype, qparams.axis).run(None, fed)
    for name, (codes, values) in answers.items():
        ours = quantize(x, qparams)
        assert np.array_equal(ours.numpy(), codes), name
        bits = values.view(np.int32)
        assert np.array_equal(dequantize(ours, qparams).numpy().view(np.int32), bits), name
        assert np.array_equal(fake_quantize(x, qparams).numpy().view(np.int32), bits), name
        assert np.array_equal(forward_values(x, qparams).numpy().view(np.int32), bits), name


def qparams_of(scale: list[float], zero_point: list[int], dtype: torch.dtype, axis: int | None) -> QParams:
    info = torch.iinfo(dtype)
    return QParams(
        scale=torch.tensor(scale),
        zero_point=torch.tensor(zero_point, dtype=torch.int32),
        quant_min=info.min,
        quant_max=info.max,
        axis=axis,
        dtype=dtype,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.floats(2**-17, 128, width=32),
    st.integers(0, 255),
    st.sampled_from([torch.int8, torch.uint8]),
    st.integers(0, 2**32 - 1),
)
def test_per_tensor(scale: float, offset: int, dtype: torch.dtype, seed: int) -> None:
    qparams = qparams_of([scale], [torch.iinfo(dtype).min + offset], dtype, None)
    x = beside_ties(scale, range(-offset - 4, 260 - offset), seed)
    # far beyond every code, and the -0.0 that rounding makes of small negative numbers
    extremes = torch.tensor([-1e6 * scale, 1e6 * scale, -0.0, 0.0, -0.1 * scale, 1e-45])
    check(torch.cat([x, extremes]), qparams)
    # onnx.reference goes through int32, which these overflow
    check(torch.tensor([-3e38, 3e38, -torch.inf, torch.inf]), qparams, with_reference=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(2**-17, 128, width=32), min_size=3, max_size=3), st.sampled_from([0, 1]))
def test_per_channel(scales: list[float], axis: int) -> None:
    qparams = qparams_of(scales, [0, 0, 0], torch.int8, axis)
    rows = torch.stack([beside_ties(scale, range(-132, 132), seed) for seed, scale in enumerate(scales)])
    check(rows if axis == 0 else rows.t().contiguous(), qparams)


def test_a_product_with_the_reciprocal_differs_beside_ties() -> None:
    """The trap that the tests above aim at: if this stopped failing, they would prove nothing."""
    generator = torch.Generator().manual_seed(0)
    wrong = total = 0
    for _ in range(50):
        scale = torch.rand(1, generator=generator) * 0.1 + 1e-3
        x = beside_ties(float(scale), range(-100, 100), 0)
        wrong += int(((x / scale).round() != (x * (1 / scale)).round()).sum())
        total += x.numel()
    assert 0.005 < wrong / total < 0.2


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_a_silent_tensor(dtype: torch.dtype) -> None:
    check(torch.zeros(5), qparams_of([2.0**-62], [0], dtype, None))
