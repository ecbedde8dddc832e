"""Files that hold their numbers behind the model, as AI Edge Quantizer writes them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from refusals import refusal

from fxqat.runtime.tflite.tflite_file import TFLiteFile

if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("no .tflite is written: ai_edge_litert is not installed", allow_module_level=True)

from tflite_files import File, schema

WEIGHT = np.arange(16, dtype=np.int8).reshape(4, 1, 1, 4)


def written(offset: int | None = None) -> bytes:
    """A convolution whose weight stands behind the model, or is said to stand at ``offset``."""
    file = File()
    file.tensor("x", (1, 2, 2, 4), (0.5, 0))
    file.tensor("w", WEIGHT.shape, (0.5, 0), data=WEIGHT)
    file.tensor("y", (1, 2, 2, 4), (1.0, 0))
    file.operation("CONV_2D", ["x", "w"], "y", strideW=1, strideH=1)
    buffer = file.model.buffers[1]
    buffer.data, buffer.size, buffer.offset = None, WEIGHT.nbytes, 1 << 40  # as many bytes as any offset has
    length = len(file.content(["x"], ["y"]))
    buffer.offset = length if offset is None else offset
    content = file.content(["x"], ["y"])
    assert len(content) == length
    return content + WEIGHT.tobytes()


def test_numbers_behind_the_model_are_read_and_written_again(tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(written())
    file = TFLiteFile.read(path)
    assert np.array_equal(file.constant(1), WEIGHT)
    again = schema.ModelT.InitFromPackedBuf(file.content(), 0)
    assert bytes(again.buffers[1].data) == WEIGHT.tobytes()
    assert again.buffers[1].offset == 0


def test_numbers_outside_of_the_file_are_refused(tmp_path):
    path = tmp_path / "a.tflite"
    content = written(offset=1 << 30)
    path.write_bytes(content)
    why = f"buffer 1 ends at byte {(1 << 30) + WEIGHT.nbytes} of {len(content)}"
    assert refusal(TFLiteFile.read, path) == f"{path}: is damaged ({why}); expected a file written by fxqat export"
