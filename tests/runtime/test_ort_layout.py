"""Files arranged for ONNX Runtime: the same codes from other operations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch.nn import functional as F

from fxqat.runtime.onnx.ort_layout import arrange, grouped_kernel

GRID = ["scale", "zero"]


@given(
    group=st.sampled_from([(2, 4), (1, 2), (1, 4), (2, 2), (3, 6)]),
    taps=st.integers(1, 5),
    channels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_grouped_kernel_computes_the_same_sums(group, taps, channels, seed):
    """Integers below 2**24 in float32, so the sums are exact in any order."""
    (stride, size), pad = group, taps // 2
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randint(-9, 10, (1, channels, 5, 4 * size), generator=drawn).float()
    weight = torch.randint(-9, 10, (3, channels, 2, taps), generator=drawn).float()
    wanted = F.conv2d(F.pad(x, (pad, taps, 0, 0)), weight, stride=(1, stride))[..., : 4 * size // stride]

    kernel, before, after = grouped_kernel(weight.numpy(), size, stride, pad)
    groups = x.permute(0, 2, 3, 1).reshape(1, 5, 4, size * channels).permute(0, 3, 1, 2)
    found = F.conv2d(F.pad(groups, (before, after, 0, 0)), torch.from_numpy(kernel))
    pixels = found.permute(0, 2, 3, 1).reshape(1, 4, 4 * size // stride, 3).permute(0, 3, 1, 2)
    assert torch.equal(pixels, wanted)


def test_an_image_is_taken_four_pixels_at_a_time():
    kernel, before, after = grouped_kernel(np.ones((16, 3, 3, 3), np.int8), 4, 2, 1)
    assert (kernel.shape, before, after) == ((32, 12, 3, 2), 1, 0)
    assert kernel.sum() == 2 * 16 * 27, "each weight twice, the rest zeros"


def test_the_exported_file_is_arranged(exported):
    """For the optimizer to cancel every Transpose around a convolution, and nothing to be computed for nobody."""
    proto = onnx.load(exported)
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert kinds["Resize"] == 0
    assert kinds["Expand"] == 2
    first = next(node for node in proto.graph.node if node.op_type == "Conv")
    weight = next(node for node in proto.graph.node if node.output[0] == first.input[1])
    assert list(next(one.dims for one in proto.graph.initializer if one.name == weight.input[0])) == [32, 12, 3, 2]
    read = {name for node in proto.graph.node for name in node.input} | {"output0"}
    assert [node.name for node in proto.graph.node if not read & set(node.output)] == []


def test_onnx_runtime_transposes_only_at_the_borders(exported, tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(exported), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    names = [node.name for node in nodes if node.op_type == "Transpose"]
    assert len(names) == 3, names  # the image, the class logits, the boxes


def test_a_joined_tensor_of_two_grids_stays_as_it_is():
    proto = small("Concat", ["a.floats", "b.floats"], other=True, axis=1)
    arrange(proto)
    assert [node.op_type for node in proto.graph.node].count("QuantizeLinear") == 3
    proto = small("Concat", ["a.floats", "b.floats"], other=False, axis=1)
    arrange(proto)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds == ["QuantizeLinear", "QuantizeLinear", "Concat", "DequantizeLinear"]


@pytest.mark.parametrize("mode", ["floor", "ceil"])
def test_only_a_resize_that_repeats_is_written_as_copies(mode):
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": mode}
    proto, plain = (small("Resize", ["a.floats", "", "factors"], other=False, **how) for _ in range(2))
    arrange(proto)
    assert ("Expand" in {node.op_type for node in proto.graph.node}) == (mode == "floor")
    x = np.random.default_rng(0).random((1, 2, 4, 4), dtype=np.float32)
    assert np.array_equal(run(proto, x), run(plain, x))


def test_a_convolution_with_weights_in_float_stays_as_it_is():
    proto = small("Conv", ["a.floats", "w"], other=False, strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    before = [node.name for node in proto.graph.node]
    arrange(proto)
    assert [node.name for node in proto.graph.node] == before


@pytest.mark.parametrize(("scale", "kinds"), [(0.1, {"Exp", "Div"}), (0.5, {"Softmax"})])
def test_distances_are_a_quotient_where_no_exponential_overflows(scale, kinds):
    """With scale 0.5 and zero point 3 the largest logit is 126: e**126 is no float32."""
    proto, plain = expectation(scale), expectation(scale)
    arrange(proto)
    assert {node.op_type for node in proto.graph.node} & {"Exp", "Div", "Softmax"} == kinds
    x = np.random.default_rng(0).normal(0, 9, (1, 5, 8)).astype(np.float32)
    # distances of at most 3: sums of 4 exponentials, each rounded a few times
    assert np.abs(run(proto, x) - run(plain, x)).max() <= 3 * 16 * 2**-23


def expectation(scale: float) -> onnx.ModelProto:
    """The mean of 0..3 under each of two softmaxes over 4 logits."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *GRID], ["codes"], name="q"),
        helper.make_node("DequantizeLinear", ["codes", *GRID], ["z"], name="d"),
        helper.make_node("Reshape", ["z", "apart"], ["sides"], name="apart"),
        helper.make_node("Softmax", ["sides"], ["shares"], name="softmax", axis=-1),
        helper.make_node("Reshape", ["shares", "flat"], ["rows"], name="flat"),
        helper.make_node("MatMul", ["rows", "values"], ["out"], name="matmul"),
    ]
    numbers = {
        "scale": np.float32(scale),
        "zero": np.uint8(3),
        "apart": np.array([1, 5, 2, 4]),
        "flat": np.array([1, 5, 8]),
        "values": np.kron(np.eye(2), np.arange(4)[:, None]).astype(np.float32),
    }
    return model(nodes, [1, 5, 8], numbers)


def small(kind: str, inputs: list[str], *, other: bool, **how: object) -> onnx.ModelProto:
    """``kind`` on codes of an image (1, 2, 4, 4), quantized again on the same grid or on another."""
    ends = ["other" if other else "scale", "zero"]
    nodes = [
        node
        for name in ("a", "b")
        if f"{name}.floats" in inputs
        for node in (
            helper.make_node("QuantizeLinear", ["x", *GRID], [f"{name}.codes"], name=f"{name}.q"),
            helper.make_node("DequantizeLinear", [f"{name}.codes", *GRID], [f"{name}.floats"], name=f"{name}.d"),
        )
    ]
    nodes += [
        helper.make_node(kind, inputs, ["y"], name="op", **how),
        helper.make_node("QuantizeLinear", ["y", *ends], ["y.codes"], name="y.q"),
        helper.make_node("DequantizeLinear", ["y.codes", *ends], ["out"], name="y.d"),
    ]
    numbers = {
        "scale": np.float32(0.1),
        "other": np.float32(0.2),
        "zero": np.uint8(3),
        "factors": np.array([1, 1, 2, 2], np.float32),
        "w": np.ones((16, 2, 3, 3), np.float32),
    }
    return model(nodes, [1, 2, 4, 4], numbers)


def model(nodes: list[onnx.NodeProto], shape: list[int], numbers: dict[str, np.ndarray]) -> onnx.ModelProto:
    """From ``x`` to ``out``."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]
