"""The ONNX file: legal, integer, named, readable by Ultralytics, and the same numbers as the reference graph."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from passes.small import quantized
from refusals import refusal
from torch import nn

import fxqat
from fxqat.graph.site import site_of
from fxqat.models.detector import cut
from fxqat.models.image_size import ImageSize
from fxqat.passes import Rules, converting
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.runtime.onnx.onnx_export import _exported, _name_by_site, _tell_sites
from fxqat.runtime.reference.tensor_names import PERMUTED
from fxqat.targets import ORT_CPU


@pytest.fixture(scope="module")
def proto(exported):
    return onnx.load(exported)


def session(path, optimized=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_the_file_is_legal_onnx_of_opset_20(proto):
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import if not entry.domain} == {"": 20}


def test_input_and_output_have_the_names_that_ultralytics_gives(proto):
    def described(value):
        return value.name, [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]

    assert [described(value) for value in proto.graph.input] == [("images", [1, 3, 64, 64])]
    assert [described(value) for value in proto.graph.output] == [("output0", [1, 84, 84])]


def test_the_metadata_is_what_ultralytics_reads(proto):
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["task"] == "detect"
    assert metadata["stride"] == "32"
    assert metadata["batch"] == "1"
    assert ast.literal_eval(metadata["imgsz"]) == [64, 64]
    assert len(ast.literal_eval(metadata["names"])) == 80
    assert metadata["policy"] == "w8a8.yaml"


def test_weights_are_integers_in_the_file(proto, exported):
    count = Counter(onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in proto.graph.initializer)
    floats = [one for one in proto.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert count["INT8"] >= 63
    assert [one.name for one in floats if np.prod(one.dims) > 1000] == [], "no weight is kept in float"
    assert exported.stat().st_size < 3.8e6, "3.15 million weights of a byte each, and the graph"


def test_codes_are_named_by_their_site(proto, converted):
    names = {name.split(PERMUTED)[0] for node in proto.graph.node for name in node.output}
    named = {name for name in names if name.endswith(".codes") and not name.startswith("node_")}
    assert named == {site_of(node) for node in converted.gm.graph.nodes if node.target is quantize_per_tensor}


def test_the_file_says_nothing_of_the_machine_that_made_it(exported, converted):
    content = exported.read_bytes()
    assert b"site-packages" not in content
    assert b"/fxqat/" not in content


def test_every_convolution_runs_in_integers(exported, tmp_path):
    session(exported, tmp_path / "optimized.onnx")
    count = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert count["QLinearConv"] == 63
    assert count["Conv"] + count["FusedConv"] == 0
    assert count["QLinearSigmoid"] == 57
    assert count["QLinearMul"] == 57


def test_onnx_runtime_gives_what_the_reference_graph_gives(exported, converted, images):
    """All codes are equal (test_verify.py), so only the decode in float differs."""
    with torch.no_grad():
        wanted = IntegerExecution(cut(converted.gm, 0)).run(images[:1]).numpy()
    got = session(exported).run(None, {"images": images[:1].numpy()})[0]
    gap = np.abs(wanted - got)
    assert gap[:, 4:].max() <= 4 * 2**-23, "a sigmoid of the same number: a few ulp of 1"
    # An expected distance sums 16 products of at most 15 in another order; a box takes two, times 32 pixels a cell.
    assert gap[:, :4].max() <= 2 * 32 * 16 * 15 * 2**-23


def test_ultralytics_loads_it_and_predicts(exported):
    from ultralytics import YOLO

    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    (result,) = YOLO(exported, task="detect").predict(picture, imgsz=64, verbose=False, conf=0.0, device="cpu")
    assert len(result.names) == 80
    assert result.boxes.data.shape[1] == 6
    assert len(result.boxes) > 0


class Twins(nn.Module):
    """Two branches whose sigmoids have one scale, that of 0..1."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU()) for _ in range(2))

    def forward(self, x):
        return self.left(x) + self.right(x)


def test_values_get_their_own_sites_in_whatever_order_the_exporter_writes_them():
    gm = quantized(Twins(), torch.rand(2, 3, 8, 8))
    graph = converting(Rules.load(), ORT_CPU).run(gm)[0]
    _tell_sites(graph)
    proto = _exported(graph, ["output0"], ImageSize.of(32), 1, False)
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _name_by_site(proto, graph)
    made = {output: node for node in proto.graph.node for output in node.output}
    for side in ("left", "right"):
        value = f"{side}.0.sigmoid.codes"
        seen = []
        while value in made:  # QuantizeLinear, Sigmoid and so on back to the convolution's weight
            node = made[value]
            seen.append(node.op_type)
            value = node.input[1] if node.op_type == "Conv" else node.input[0]
        assert seen[:2] == ["QuantizeLinear", "Sigmoid"]
        assert f"{side}_0" in value


@pytest.mark.slow
def test_a_dynamic_batch(small, images, tmp_path):
    qat = fxqat.calibrate(fxqat.prepare(small, "w8a8")[0], [images])
    path = fxqat.export(qat, tmp_path / "dynamic.onnx", imgsz=64, dynamic=True, opset=19)
    proto, run = onnx.load(path), session(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.domain: entry.version for entry in proto.opset_import if not entry.domain} == {"": 19}
    whole = run.run(None, {"images": images.numpy()})[0]
    classes, cells = len(small.source.names), sum((64 // int(stride)) ** 2 for stride in small.source.stride)
    assert whole.shape == (4, 4 + classes, cells)
    alone = np.concatenate([run.run(None, {"images": images[i : i + 1].numpy()})[0] for i in range(4)])
    # Integers do not care for the batch; the decode may sum in another order: 16 roundings of 15, 32 pixels a cell.
    assert np.abs(whole - alone).max() <= 32 * 16 * 15 * 2**-23


@pytest.mark.slow
def test_a_float_model_is_exported_in_float(yolov8n, images, tmp_path):
    path = fxqat.export(yolov8n, tmp_path / "float.onnx", imgsz=64)
    with torch.no_grad():
        wanted = yolov8n(images[:1])[0].numpy()
    got = session(path).run(None, {"images": images[:1].numpy()})[0]
    # Batch norm folded and other kernels: 60 layers of relative error 2**-20 each, on boxes of up to 64 pixels.
    assert np.abs(got - wanted).max() <= 64 * 60 * 2**-20
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert ast.literal_eval(metadata["args"])["int8"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"imgsz": 100}, "imgsz 100: is not a multiple of 32; use 96 or 128"),
        (
            {"imgsz": 0},
            "imgsz 0: is no size of an image; expected height and width in pixels, such as 640, 384,640 or 384x640",
        ),
        ({"opset": 12}, "--opset: 12; expected 13 to 21"),
        ({"opset": 22}, "--opset: 22; expected 13 to 21"),
        ({"batch": 0}, "--batch: 0 images at a time; expected 1 or more"),
    ],
)
def test_bad_options(converted, tmp_path, options, words):
    path = tmp_path / "a.onnx"
    assert refusal(fxqat.export, converted, path, **options) == words
    assert not path.exists()


def test_bad_paths(converted, tmp_path):
    assert refusal(fxqat.export, converted, tmp_path / "a.pt").endswith(
        "ends in '.pt'; expected a name that ends in .onnx"
    )
    assert "its folder does not exist" in refusal(fxqat.export, converted, tmp_path / "no" / "a.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder; expected the name of a file to write" in refusal(
        fxqat.export, converted, tmp_path / "folder.onnx"
    )


def test_a_model_that_was_never_calibrated(prepared, tmp_path):
    words = refusal(fxqat.export, prepared, tmp_path / "a.onnx")
    assert words == "yolov8n.yaml: was never calibrated; expected a calibrated .fxqat; run fxqat calibrate first"
