"""Plain integers in an .npz, and the reader in docs that computes every code of one image from them in numpy."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from alive import alive
from refusals import refusal

import fxqat
from fxqat.cli import main
from fxqat.models.detector import cut
from fxqat.quant.arithmetic import ARITHMETICS
from fxqat.runtime import integers_export
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.runtime.integer_model import arithmetic_of
from fxqat.runtime.integers_export import export_integers
from fxqat.runtime.reference.redundant_qdq import as_exported
from fxqat.runtime.reference.tensor_names import CODES
from fxqat.targets import target_of

READER = Path(__file__).resolve().parents[2] / "docs" / "examples" / "integers_reader.py"
# Every operation that the file knows, and no more.
ARCHITECTURE = """
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2, null, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, SPPF, [16, 5]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
head:
  - [[5, 3], 1, Segment, [nc, 4, 8]]
"""


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("integers_reader", READER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small_yolov8-seg.yaml"
    path.write_text(ARCHITECTURE)
    return alive(fxqat.load(str(path)), images)


@pytest.fixture(scope="module", params=["ort-cpu", "litert"])
def qat(request, small, images):
    return fxqat.calibrate(fxqat.prepare(small, "w8a8", target=request.param)[0], [images])


@pytest.fixture(scope="module")
def int8(qat):
    return fxqat.convert(qat)[0]


@pytest.fixture(scope="module")
def file(int8, tmp_path_factory):
    return export_integers(int8, tmp_path_factory.mktemp("integers") / "small.npz", imgsz=64)


def test_the_reader_computes_every_code_of_an_image(reader, file, int8, images):
    pixels = torch.round(images[0] * 255)
    found = reader.run(str(file), pixels.byte().numpy())
    view = as_exported(cut(int8.gm, 0).eval(), target_of(int8.recipe.target))
    execution = IntegerExecution(view, ARITHMETICS[arithmetic_of(int8)])
    execution.run(pixels[None] / 255)
    wanted = {site.removesuffix(CODES): codes.numpy() for site, codes in execution.codes.items()}
    # of a SiLU its result alone: the sigmoid inside is part of its table
    assert {name for name in wanted if name not in found} == {name for name in wanted if name.endswith(".sigmoid")}
    for name, codes in found.items():
        assert codes.dtype == wanted[name].dtype, name
        assert np.array_equal(codes, wanted[name]), name


def test_the_file_needs_no_pickle_and_says_what_it_holds(file, int8):
    with np.load(file, allow_pickle=False) as held:
        graph = json.loads(str(held["graph"]))
        arrays = dict(held)
    steps = {step["name"]: step for step in graph["operations"]}
    assert (graph["format"], graph["imgsz"], graph["task"]) == ("fxqat integers 1", [64, 64], "segment")
    layers = [step["name"] for step in graph["operations"] if step["op"] == "convolution"]
    assert layers
    for name in layers:
        weight, scale = arrays[f"{name}.weight"], arrays[f"{name}.weight_scale"]
        step, (source,) = steps[name], steps[name]["inputs"]
        assert (weight.dtype, arrays[f"{name}.bias"].dtype) == (np.int8, np.int32)
        exact = np.float32(steps[source]["scale"]) * scale / np.float32(step["scale"])
        assert np.array_equal(arrays[f"{name}.multiplier"], exact)
    assert set(graph["outputs"]) <= set(steps)
    read = {name for step in graph["operations"] for name in step["inputs"]}
    assert set(steps) == read | set(graph["outputs"]), "what nothing reads is an output"


def test_the_command(qat, tmp_path, capsys):
    fxqat.save(qat, tmp_path / "small_ptq.fxqat")
    path = tmp_path / "small.npz"
    assert main(["export", str(tmp_path / "small_ptq.fxqat"), "--integers", str(path), "--imgsz", "64"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {path} (0.")
    assert main(["export", str(tmp_path / "small_ptq.fxqat"), "--integers", str(path), "-o", "x.onnx"]) == 2
    assert capsys.readouterr().err == "fxqat: -o: names a file for a runtime; give it or --integers\n"


def test_refusals(int8, small, tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    words = refusal(export_integers, small, path, imgsz=64)
    assert words.startswith("--integers: the model's integers are those of target ")
    monkeypatch.setattr(integers_export, "_MOVES", {})
    words = refusal(export_integers, int8, path, imgsz=64)
    assert words.endswith(
        " is computed in float, between integers; expected integers from the image to the decode; quantize it in the "
        "policy, or export a file for a runtime"
    )
    assert not path.exists()


def test_the_reader_is_short():
    assert len(READER.read_text().splitlines()) < 80
