"""The .tflite file: integer, named, readable by Ultralytics, and the same codes as the reference graph in LiteRT."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np
import pytest
import torch
from refusals import refusal

import fxqat
from fxqat.evaluation.comparison import open_model
from fxqat.graph.site import site_of
from fxqat.models.detector import cut
from fxqat.models.image_size import ImageSize
from fxqat.quant.torch_ao import dequantize_per_channel, quantize_per_tensor
from fxqat.runtime.integer_model import in_integers
from fxqat.runtime.reference.tensor_names import back, permuted
from fxqat.runtime.tflite import litert_session, tflite_file
from fxqat.runtime.tflite.litert_export import FORMS
from fxqat.runtime.tflite.litert_session import as_pixels
from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_outputs import outputs_of

MISSING = [name for name in ("litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]
needs_litert = pytest.mark.skipif(bool(MISSING), reason=f"no .tflite is written or run: {MISSING} not installed")


@pytest.fixture(scope="module")
def trained(small, images):
    return fxqat.calibrate(fxqat.prepare(small, "critical", target="litert")[0], [images])


@pytest.fixture(scope="module")
def int8(trained):
    return fxqat.convert(trained)[0]


@pytest.fixture(scope="module")
def exported(int8, tmp_path_factory):
    return fxqat.export(int8, tmp_path_factory.mktemp("litert") / "small_int8.tflite", imgsz=64, input="int8")


@pytest.fixture(scope="module", params=FORMS)
def each(request, exported, tmp_path_factory):
    """The exported file with each form of input, as export writes it."""
    file = TFLiteFile.read(exported)
    if request.param != "int8":
        kind, numbers = {"float": ("float32", None), "uint8": ("uint8", (1 / 255, 0))}[request.param]
        file.rename(file.graph.inputs[0], permuted("images.codes", (0, 2, 3, 1)))
        file.quantize_input(kind, numbers)
        file.name_ends("images", ["output0"])
    path = tmp_path_factory.mktemp(request.param) / "small_int8.tflite"
    file.write(path)
    return path


def bytes_of(images):
    return torch.round(images[:1] * 255) / 255


@needs_litert
def test_every_code_is_the_reference_s(trained, each, images):
    seen = fxqat.verify(trained, each, [bytes_of(images)], imgsz=64, runtimes="litert,litert-plain")
    assert seen.total("reference_runtime").differing == 0
    assert seen.total("litert-plain").differing == 0
    values = {row.site for row in seen.rows}
    assert len(values) == len(seen.rows) > 20
    # float32 and no more operations than the decode's: boxes of up to 64 pixels, through division by the size and back
    assert seen.output_error["px"] < 64 * 2**-20
    assert seen.output_error["in scores"] < 2**-20


@needs_litert
def test_tensors_are_named_by_their_site(exported, int8):
    file = TFLiteFile.read(exported)
    sites = Counter(site_of(node) for node in int8.gm.graph.nodes if node.target is quantize_per_tensor)
    named = Counter(back(file.name(index), 0)[0] for index, _ in file.made())
    assert {name: count for name, count in named.items() if name.endswith(".codes")} == sites - Counter(
        ["images.codes"]
    )


@needs_litert
def test_all_integer_layers_are_integer_in_the_file(exported, int8):
    layers = [node for node in cut(int8.gm, 0).graph.nodes if node.target is dequantize_per_channel]
    weights = [node for node in layers if node.args[-1] is torch.int8]
    found = TFLiteFile.read(exported).operations()
    assert found["CONV_2D", "int8"] == len(weights)
    assert found["LOGISTIC", "int8"] == found["MUL", "int8"] == len(weights), "each layer of this policy ends in SiLU"


@needs_litert
def test_weights_and_biases_are_the_codes_of_the_graph(exported, int8):
    file = TFLiteFile.read(exported)
    held = {file.name(index): file.constant(index) for index in range(len(file.graph.tensors))}
    stored = dict(int8.gm.named_buffers())
    for path in [path for path in stored if path.endswith(".bias")]:
        site = next(name for name in held if name.replace(".", "_") == path.split(".")[1] + "_bias")
        assert np.array_equal(held[site], stored[path].numpy())
        weight = stored[path.replace(".bias", ".weight")].numpy()
        assert np.array_equal(held[site.replace(".bias", ".weight")], weight.transpose(0, 2, 3, 1))


@needs_litert
def test_buffers_lie_as_the_schema_asks(exported):
    from ai_edge_litert import schema_py_generated as schema

    content = exported.read_bytes()
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    model = schema.Model.GetRootAs(content, 0)
    held = [model.Buffers(index) for index in range(model.BuffersLength())]
    places = {one.DataAsNumpy().__array_interface__["data"][0] - start for one in held if not one.DataIsNone()}
    assert {place % 16 for place in places} == {0}


@needs_litert
@pytest.mark.parametrize("each", ["float", "int8"], indirect=True)
def test_ultralytics_reads_it(each, int8, images):
    from ultralytics.nn.autobackend import AutoBackend

    backend = AutoBackend(str(each))
    assert backend.backend.metadata["task"] == "detect"
    assert (backend.stride, backend.imgsz, backend.names) == (int8.stride, [64, 64], int8.names)
    pictures, file = bytes_of(images), TFLiteFile.read(each)
    pixels = as_pixels(pictures.numpy(), file.type(file.graph.inputs[0]))
    if pixels.dtype == np.int8:  # Ultralytics cuts the fraction off instead of rounding, so some bytes lose one
        theirs = pictures.numpy().transpose(0, 2, 3, 1) / np.float32(1 / 255) - 128
        assert np.abs(theirs.astype(np.int8) - pixels).max() == 1
        pixels = theirs.astype(np.int8)
    found = litert_session.interpreter(file.content(), xnnpack=True)({"images": pixels})
    (wanted,) = outputs_of(file, int8.final).read(found)
    assert np.array_equal(backend(pictures).numpy(), wanted)


@needs_litert
def test_evaluation_takes_it_in_batches_of_any_size(each, trained, images):
    model, bytes_only = open_model(each), torch.round(images * 255) / 255
    assert (model.names, model.imgsz) == (trained.names, ImageSize.of(64))
    found = model(bytes_only)
    assert all(torch.equal(found[index], model(bytes_only[index : index + 1])[0]) for index in range(len(images)))
    seen = in_integers(fxqat.convert(trained)[0]).run(bytes_only)
    assert torch.allclose(found, seen, rtol=0, atol=64 * 2**-20)


@needs_litert
def test_a_float_model_stays_in_float(small, images, tmp_path):
    path = fxqat.export(small, tmp_path / "small.tflite", imgsz=64, batch=2)
    file = TFLiteFile.read(path)
    assert {type_ for _, type_ in file.operations()} == {"float32"}
    assert file.shape(file.graph.inputs[0]) == (2, 64, 64, 3)
    with torch.no_grad():
        wanted = small(images[:3])[0]
    # Batch norm folded and other kernels: 20 layers of relative error 2**-20 each, on boxes of up to 64 pixels.
    assert torch.allclose(open_model(path)(images[:3]), wanted, rtol=0, atol=64 * 20 * 2**-20)
    refused = refusal(fxqat.export, small, tmp_path / "x.tflite", imgsz=64, input="uint8")
    assert refused == "--input: uint8: the first layer computes in float; expected float"


@needs_litert
def test_the_file_says_nothing_of_the_machine_that_made_it(exported):
    content = exported.read_bytes()
    assert b"site-packages" not in content
    assert b"fxqat/" not in content


def test_orders_of_axes():
    assert permuted("a.codes", (0, 1, 2)) == "a.codes"
    name = permuted("a.codes", (0, 2, 3, 1))
    assert name == "a.codes.permuted.0.2.3.1"
    known, axes = back(name, 4)
    held = np.zeros((1, 5, 6, 3)).transpose(axes)
    assert (known, held.shape) == ("a.codes", (1, 3, 5, 6))
    assert back("a.codes", 3) == ("a.codes", (0, 1, 2))


def test_pixels():
    images = (torch.arange(256).float() / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16).numpy()
    every = np.arange(256).reshape(16, 16)
    assert np.array_equal(as_pixels(images, "uint8")[0, ..., 0], every)
    assert np.array_equal(as_pixels(images, "int8")[0, ..., 2], every - 128)
    assert np.array_equal(as_pixels(images, "float32"), images.transpose(0, 2, 3, 1))


def test_without_litert_torch(monkeypatch, int8, tmp_path):
    monkeypatch.setattr(tflite_file, "is_installed", lambda package: False)
    words = refusal(lambda: fxqat.export(int8, tmp_path / "x.tflite", imgsz=64))
    assert words == "--target litert: litert-torch is not installed; pip install 'fxqat[litert]'"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            {"input": "uint16"},
            "--input: unknown form 'uint16'; expected one of: float, uint8, int8; did you mean 'uint8'?",
        ),
        ({"batch": 0}, "--batch: 0 images at a time; expected 1 or more"),
        ({"imgsz": 50}, "imgsz 50: is not a multiple of 32; use 32 or 64"),
    ],
)
def test_refusals(how, words, int8, tmp_path):
    assert refusal(lambda: fxqat.export(int8, tmp_path / "x.tflite", **{"imgsz": 64, **how})) == words


def test_other_targets_and_batches_are_refused(int8, converted, tmp_path):
    path = tmp_path / "x.tflite"
    assert refusal(lambda: fxqat.export(int8, path, dynamic=True)) == (
        f"{path}: has a batch of one size; expected no dynamic batch; give the size as batch"
    )
    assert refusal(lambda: fxqat.export(converted, path, imgsz=64)) == (
        f"{path}: is a file for LiteRT, and the model was prepared for ort-cpu; expected a model of target litert; "
        "retarget it: --target litert"
    )


TASKS = "detect, segment, pose, obb, classify"
UNSAID = f"does not say what it predicts; expected Ultralytics' metadata, a task of: {TASKS}"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, UNSAID),
        ({"task": "detect"}, UNSAID),
        ({"task": "depth", "names": {"0": "cat"}}, f"is a model for the task 'depth'; expected one of: {TASKS}"),
    ],
)
@needs_litert
def test_what_does_not_say_what_it_predicts(metadata, says, exported, tmp_path):
    file = TFLiteFile.read(exported)
    file.metadata = metadata
    file.write(path := tmp_path / "x.tflite")
    assert refusal(open_model, path) == f"{path}: {says}"


def test_what_is_no_tflite_file(tmp_path):
    path = tmp_path / "x.tflite"
    assert refusal(lambda: TFLiteFile.read(path)).endswith(
        "no such file; expected a .tflite file; run fxqat export first"
    )
    path.write_bytes(b"no flatbuffer")
    assert refusal(lambda: TFLiteFile.read(path)) == (
        f"{path}: is not a .tflite file; expected a file written by fxqat export"
    )
