"""Opsets 13 to 21: the same codes, the same integer kernels, the lowest IR version; and what an opset cannot say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.helper import make_node, make_tensor_value_info
from refusals import refusal

import fxqat
from fxqat.runtime.onnx.opsets import OPSETS, to_opset

FLOAT = onnx.TensorProto.FLOAT
# The versions of IR that onnx names for its own releases: onnx/docs/Versioning.md
IR = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}


def rewritten(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    to_opset(made, opset)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(proto: onnx.ModelProto, images: np.ndarray, optimized: Path) -> tuple[list[np.ndarray], Counter[str]]:
    """Every tensor of codes and the output, and the operations of the graph that ONNX Runtime makes of the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(optimized)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images}), Counter(node.op_type for node in onnx.load(optimized).graph.node)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_gives_the_same_codes_in_the_same_kernels(exported, images, tmp_path, opset):
    proto, pixels = onnx.load(exported), images[:1].numpy()
    made = rewritten(proto, opset)
    assert {entry.domain: entry.version for entry in made.opset_import} == {"": opset}
    assert made.ir_version == IR[opset]
    wanted, kernels = run(proto, pixels, tmp_path / "wanted.onnx")
    found, same = run(made, pixels, tmp_path / "found.onnx")
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert same == kernels
    integer = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    read = {node.output[0] for node in proto.graph.node if node.input and node.input[0] in integer}
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv" and node.input[1] in read]
    assert same["QLinearConv"] == len(convolutions) > 0


@pytest.mark.parametrize("target", ["openvino", "ort-arm"])
def test_the_oldest_opset_for_other_layouts_and_a_free_batch(small, images, tmp_path, target):
    qat = fxqat.calibrate(fxqat.prepare(small, "critical", target=target)[0], [images])
    path = fxqat.export(qat, tmp_path / "x.onnx", opset=13, dynamic=True)
    new = fxqat.export(qat, tmp_path / "y.onnx", opset=21, dynamic=True)
    for count in (1, 3):
        pixels = images[:count].numpy()
        found, wanted = (run(onnx.load(one), pixels, tmp_path / "o.onnx")[0] for one in (path, new))
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def proto_of(*nodes: onnx.NodeProto, outputs: list[str], constants: dict[str, list[int]]) -> onnx.ModelProto:
    tensors = [onnx.numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    source = make_tensor_value_info("x", FLOAT, [1, 7, 4])
    ends = [make_tensor_value_info(name, FLOAT, [None] * 3) for name in outputs]
    graph = helper.make_graph(list(nodes), "small", [source], ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_split_into_equal_parts_needs_no_count():
    proto = proto_of(make_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2), outputs=["a", "b"], constants={})
    (node,) = rewritten(proto, 13).graph.node
    assert [one.name for one in node.attribute] == ["axis"]


@pytest.mark.parametrize(
    ("node", "outputs", "constants", "line"),
    [
        (
            make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
            ["a", "b"],
            {},
            "--opset: Split with num_outputs at a is too new for it; expected 18 or more",
        ),
        (
            make_node("Reshape", ["x", "shape"], ["a"], allowzero=1),
            ["a"],
            {"shape": [0, 28]},
            "--opset: Reshape with allowzero at a is too new for it; expected 19 or more",
        ),
        (
            make_node("HardSwish", ["x"], ["a"]),
            ["a"],
            {},
            "--opset: HardSwish at a is too new for it; expected 14 or more",
        ),
        (make_node("Gelu", ["x"], ["a"]), ["a"], {}, "--opset: Gelu at a is too new for it; expected 20 or more"),
    ],
)  # fmt: skip
def test_what_an_opset_cannot_say_is_refused(node, outputs, constants, line):
    assert refusal(rewritten, proto_of(node, outputs=outputs, constants=constants), 13) == line
