"""Exported files in other programs: old ONNX Runtimes, C++, WebAssembly, OpenVINO, OpenCV; batches, threads, bytes.

Those that no package of this project's brings are named by the environment:

- ``FXQAT_ORT_PYTHONS``: Python interpreters, separated by ``:``, that have ONNX Runtime of any version
- ``FXQAT_ORT_INCLUDE``, ``FXQAT_ORT_LIB``: folders of ONNX Runtime's headers and library, for C++
- ``FXQAT_NODE_MODULES``: the folder ``node_modules`` that onnxruntime-web was installed into
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch

import fxqat
from fxqat.evaluation.predictor import from_onnx
from fxqat.runtime.runtimes import RUNTIMES

HERE = Path(__file__).parent / "consumers"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# Every kernel between images and outputs is of integers; what is left to differ between versions and compilers are
# exponentials of the decode, a few units of float32's last place of numbers up to 64 pixels.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture(scope="module")
def oldest(converted, tmp_path_factory):
    """The INT8 file at the oldest opset."""
    return fxqat.export(converted, tmp_path_factory.mktemp("consumers") / "oldest.onnx", imgsz=64, opset=13)


@pytest.fixture(scope="module")
def sizes(small_int8, tmp_path_factory):
    """An INT8 file for batches of four, and one for any batch."""
    folder = tmp_path_factory.mktemp("batches")
    fixed = fxqat.export(small_int8, folder / "fixed.onnx", imgsz=64, batch=4)
    return fixed, fxqat.export(small_int8, folder / "free.onnx", imgsz=64, dynamic=True)


@pytest.fixture(scope="module")
def image(images):
    return images[:1].numpy()


@pytest.fixture(scope="module")
def wanted(oldest, image):
    return output(oldest, image)


def output(path, pixels):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["output0"], {"images": pixels})[0]


def named(variable):
    """What the environment names; skips where it names nothing."""
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip(f"{variable} is not set: see the head of {Path(__file__).name}")
    return value


def ran(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_other_versions_of_onnx_runtime(oldest, image, wanted, tmp_path):
    np.save(tmp_path / "images.npy", image)
    for python in named("FXQAT_ORT_PYTHONS").split(os.pathsep):
        version = ran(python, HERE / "old_runtime.py", oldest, tmp_path / "images.npy", tmp_path / "output.npy")
        np.testing.assert_allclose(np.load(tmp_path / "output.npy"), wanted, err_msg=version, **CLOSE)


def test_the_example_in_cpp(oldest, image, wanted, tmp_path):
    include, library = named("FXQAT_ORT_INCLUDE"), named("FXQAT_ORT_LIB")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    paths = ("-I", include, EXAMPLES / "onnxruntime.cpp", "-L", library, f"-Wl,-rpath,{library}", "-lonnxruntime")
    ran("g++", "-std=c++17", "-Wall", *paths, "-o", tmp_path / "run")
    image.tofile(tmp_path / "images.raw")
    ran(tmp_path / "run", oldest, tmp_path / "images.raw", tmp_path / "output.raw")
    found = np.fromfile(tmp_path / "output.raw", np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, **CLOSE)


def test_onnx_runtime_web(oldest, image, wanted, tmp_path):
    modules = named("FXQAT_NODE_MODULES")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    image.tofile(tmp_path / "images.raw")
    shape = ",".join(map(str, image.shape))
    ran("node", HERE / "web.mjs", modules, oldest, tmp_path / "images.raw", shape, tmp_path / "output.raw")
    found = np.fromfile(tmp_path / "output.raw", np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, **CLOSE)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_takes_the_file_of_every_opset(converted, image, tmp_path):
    import onnx

    paths = [fxqat.export(converted, tmp_path / f"{opset}.onnx", imgsz=64, opset=opset) for opset in (13, 20)]
    first, second = (RUNTIMES["openvino"].open(onnx.load(path))({"images": image})[0] for path in paths)
    np.testing.assert_array_equal(first, second)


class TestOpenCV:
    """OpenCV reads files for ONNX Runtime, float and INT8."""

    def forward(self, path, pixels):
        network = cv2.dnn.readNetFromONNX(str(path))
        network.setInput(pixels, "images")
        return network.forward()

    def test_float(self, yolov8n, image, tmp_path):
        path = fxqat.export(yolov8n, tmp_path / "float.onnx", imgsz=64)
        # sums of float32 in another order, through some sixty layers
        np.testing.assert_allclose(self.forward(path, image), output(path, image), rtol=1e-3, atol=1e-2)

    def test_int8(self, oldest, image, wanted):
        found = self.forward(oldest, image)
        assert found.shape == wanted.shape
        assert np.isfinite(found).all()


class TestBatches:
    @pytest.mark.parametrize("count", [1, 3, 5])
    def test_any_number_of_images_in_a_fixed_batch_and_a_free_one(self, sizes, count):
        fixed, free = (from_onnx(path, threads=1) for path in sizes)
        shown = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
        assert torch.equal(fixed(shown), free(shown))
        assert len(fixed(shown)) == count

    def test_two_threads_on_one_session(self, oldest, images):
        model = from_onnx(oldest, threads=1)
        shown = [one[None] for one in images] * 4
        alone = [model(one) for one in shown]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(model, shown))
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))

    def test_bytes_as_cameras_deliver_them(self, converted, oldest, images, tmp_path):
        path = fxqat.export(converted, tmp_path / "nhwc.onnx", imgsz=64, input="uint8-nhwc")
        frame = (images[:1] * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        floats = (torch.from_numpy(frame).permute(0, 3, 1, 2).float() / 255).contiguous().numpy()
        np.testing.assert_allclose(output(path, frame), output(oldest, floats), **CLOSE)
