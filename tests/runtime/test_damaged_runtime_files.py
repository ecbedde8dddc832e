"""Damaged files given to val and verify: a sample of ``python -m bench.damaged_runtime_files``."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from refusals import refusal

from bench.damaged_runtime_files import DAMAGES, examples, trials
from fxqat.evaluation.predictor import from_onnx
from fxqat.runtime.onnx.onnx_file import read

COUNT = 12


def in_this_process(trial, count):
    return map(trial, range(count))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small detector and its ONNX file, the first of the examples."""
    return next(examples(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def exported(small):
    return small.path


def test_damaged_onnx_files_run_or_are_refused_in_one_line(small, tmp_path):
    counts = trials(small, tmp_path, COUNT, 7, run_all=in_this_process)
    assert len(counts) == 2 * (len(DAMAGES) + 1)
    assert sum(sum(row.values()) for row in counts.values()) == 2 * COUNT
    assert {word for row in counts.values() for word in row} <= {"refused", "ran"}
    assert all(set(row) == {"refused"} for damage, row in counts.items() if "cut short" in damage)


@pytest.fixture
def changed(exported, tmp_path):
    def write(change):
        proto = onnx.load(exported)
        change(proto)
        path = tmp_path / "changed.onnx"
        onnx.save(proto, path)
        return path

    return write


def test_a_constant_that_is_shorter_than_it_says(changed):
    def cut(proto):
        tensor = next(one for one in proto.graph.initializer if len(one.raw_data) > 1)
        tensor.raw_data = tensor.raw_data[:-1]

    path = changed(cut)
    assert refusal(read, path).startswith(f"{path}: is damaged: constant ")
    assert refusal(from_onnx, path) == refusal(read, path)


def test_names_that_are_no_text(exported, tmp_path):
    content, name = exported.read_bytes(), b"model.0.conv"
    assert name in content
    path = tmp_path / "names.onnx"
    path.write_bytes(content.replace(name, b"model.0.c\xff\xffv"))
    says = "is damaged: a name or the metadata are no text; expected a file written by fxqat export"
    assert refusal(read, path) == f"{path}: {says}"


def test_more_than_one_input(changed):
    path = changed(lambda proto: proto.graph.input.append(onnx.ValueInfoProto(name="other")))
    assert refusal(read, path) == f"{path}: has 2 inputs; expected one, for images"


def test_constants_that_old_files_list_as_inputs_are_none(changed):
    def listed(proto):
        tensor = proto.graph.initializer[0]
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        proto.graph.input.append(value)

    assert read(changed(listed))


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int8, np.bool_])
def test_constants_of_every_way_to_hold_values_are_whole(changed, kind):
    def add(proto):
        values = np.ones((2, 3), kind)
        proto.graph.initializer.append(numpy_helper.from_array(values, "raw"))
        typed = onnx.helper.make_tensor("typed", onnx.helper.np_dtype_to_tensor_dtype(values.dtype), (2, 3), [1] * 6)
        proto.graph.initializer.append(typed)

    assert read(changed(add))


def test_what_fails_while_it_runs_is_one_line(changed, capfd):
    def stretch(proto):
        sizes = next(one for one in proto.graph.initializer if one.data_type == onnx.TensorProto.INT64)
        sizes.raw_data = (np.zeros(tuple(sizes.dims), np.int64) + 10**6).tobytes()

    path = changed(stretch)

    def predict():
        import torch

        from_onnx(path)(torch.zeros(1, 3, 64, 64))

    assert refusal(predict).startswith(f"{path}: ONNX Runtime cannot run it: ")
    assert capfd.readouterr().err == ""  # the runtime's own log does not say it again
