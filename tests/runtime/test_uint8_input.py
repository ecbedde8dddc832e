"""Bytes at the border: the same codes as from floats, channels first or last, and no operation on floats before the
first convolution."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import fxqat
from fxqat.errors import Problem
from fxqat.models.image_size import ImageSize
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.runtime.sessions import as_input, open_file

SITES = ("images", "model.0.conv", "model.9.cat", "model.22.cv2.0.2")


@pytest.fixture(scope="module")
def pictures():
    """Every byte is there: (2, 3, 64, 64)."""
    values = np.random.default_rng(0).permutation(2 * 3 * 64 * 64) % 256
    return values.astype(np.uint8).reshape(2, 3, 64, 64)


@pytest.fixture(scope="module")
def files(converted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    return {
        form: fxqat.export(converted, folder / f"{form}.onnx", imgsz=64, input=form) for form in ("uint8", "uint8-nhwc")
    }


@pytest.mark.parametrize("form", ["uint8", "uint8-nhwc"])
def test_codes_equal_those_of_the_float_file(files, exported, pictures, form):
    """A byte over 255 in float32 is quantized to the byte again, all 256 of them; the rest is integers."""
    (wanted,), codes = open_file(exported, SITES, RUNTIMES["ort"])((pictures[:1] / np.float32(255)).astype(np.float32))
    given = pictures[:1].transpose(0, 2, 3, 1) if form == "uint8-nhwc" else pictures[:1]
    session = ort.InferenceSession(str(files[form]), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert session.get_inputs()[0].shape == list(given.shape)
    (output,) = session.run(None, {"images": np.ascontiguousarray(given)})
    assert np.array_equal(output, wanted)
    images = (pictures[:1] / np.float32(255)).astype(np.float32)
    _, others = open_file(files[form], SITES, RUNTIMES["ort"])(images)
    assert all(np.array_equal(codes[site], others[site]) for site in SITES)


@pytest.mark.parametrize(("form", "first"), [("uint8", []), ("uint8-nhwc", ["Transpose"])])
def test_nothing_is_computed_in_floats_at_the_border(files, form, first):
    proto = onnx.load(files[form])
    reached, kinds = {"images"}, []
    for node in proto.graph.node:
        if node.op_type != "Conv" and reached & set(node.input):
            kinds.append(node.op_type)
            reached |= set(node.output)
    groups = ["Transpose", "Reshape", "Transpose"]  # of bytes, see arrange
    assert kinds[: len(first) + 4] == [*first, *groups, "DequantizeLinear"], "which the convolution takes in"
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["input"] == {"uint8": "uint8 NCHW, RGB in 0..255", "uint8-nhwc": "uint8 NHWC, RGB in 0..255"}[form]


def test_a_target_that_does_not_round_images_to_bytes_divides_them(small, images, pictures, tmp_path):
    qat = fxqat.calibrate(fxqat.prepare(small, "critical", target="tensorrt")[0], [images])
    plain, given = (fxqat.export(qat, tmp_path / f"{form}.onnx", imgsz=64, input=form) for form in ("float", "uint8"))
    kinds = [node.op_type for node in onnx.load(given).graph.node][:3]
    assert kinds == ["Cast", "Div", "QuantizeLinear"]
    run = {path: ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (plain, given)}
    floats = (pictures[:1] / np.float32(255)).astype(np.float32)
    assert np.array_equal(
        run[plain].run(None, {"images": floats})[0], run[given].run(None, {"images": pictures[:1]})[0]
    )


def test_verify_takes_a_file_of_bytes(calibrated, files):
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64)) / 255).float()
    for path in files.values():
        found = fxqat.verify(calibrated, path, [pixels], imgsz=64)
        assert found.total("reference_runtime").differing == 0
        assert len(found.rows) > 200


def test_as_input_keeps_floats():
    source = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 2, 2])
    images = np.zeros((1, 3, 2, 2), np.float32)
    assert as_input(images, source) is images


def test_a_form_that_is_none(converted, tmp_path):
    with pytest.raises(Problem) as caught:
        fxqat.export(converted, tmp_path / "a.onnx", imgsz=64, input="uint8_nhwc")
    assert str(caught.value) == (
        "--input: unknown form 'uint8_nhwc'; expected one of: float, uint8, uint8-nhwc; did you mean 'uint8-nhwc'?"
    )


def test_accuracy_is_measured_on_files_of_bytes(files, exported, pictures):
    from fxqat.evaluation.predictor import from_onnx

    images = torch.from_numpy(pictures / np.float32(255)).float()
    wanted = from_onnx(exported)(images)
    for path in files.values():
        opened = from_onnx(path)
        assert opened.imgsz == ImageSize.of(64)
        assert torch.equal(opened(images), wanted)
