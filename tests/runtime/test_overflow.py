"""The proof that no input overflows a 16-bit sum, and what is said of machines and files that are not exact."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import fxqat
from fxqat.cli import main
from fxqat.quant.pair_order import Order
from fxqat.runtime import exactness, processor
from fxqat.runtime.onnx.overflow import integer_weights, prove
from fxqat.runtime.runtime import Runtime
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets import TARGETS


@pytest.fixture
def overflowing(exported, tmp_path):
    """The exported file with a pair above the bound in its first 1x1 convolution, and that layer's name."""
    proto = onnx.load(exported)
    node, codes = next((node, codes) for node, codes in integer_weights(proto) if codes.shape[2:] == (1, 1))
    (tensor,) = [one for one in proto.graph.initializer if one.name == weight_of(proto, node)]
    wrong = codes.copy()
    wrong[2, 4:6, 0, 0] = -65, -64
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    return tmp_path / "wrong.onnx", node.name


def weight_of(proto, node):
    return next(one.input[0] for one in proto.graph.node if one.output[0] == node.input[1])


@pytest.mark.parametrize("runtime", [name for name, one in RUNTIMES.items() if one.pair_orders])
def test_files_for_any_x86_never_overflow(exported, converted, runtime):
    proof = prove(exported, RUNTIMES["ort"].pair_orders)
    assert proof.holds
    assert proof.layers == sum("weight" in name for name, _ in converted.gm.named_buffers() if name.endswith(".weight"))
    assert (
        str(proof) == f"no 16-bit sum can overflow on any input: {proof.layers} integer layers, every pair within 128"
    )
    assert RUNTIMES[runtime].pair_orders[0] is Order.ROWS


def test_the_layer_and_the_pair_are_named(overflowing):
    path, layer = overflowing
    proof = prove(path, [Order.ROWS])
    assert not proof.holds
    assert str(proof) == (
        f"16-bit sums can overflow in 1 of {proof.layers} integer layers, which only processors with VNNI compute "
        f"exactly; first {layer}: channel 2, weights (4, 0, 0) and (5, 0, 0) sum to -129"
    )


def linear(kind: str, weight: np.ndarray) -> onnx.ModelProto:
    """A product of a constant weight, as exporters write it: transposed or not, quantized around or inside."""
    stored = weight if kind == "Gemm, transposed" else weight.T.copy()
    constants = [numpy_helper.from_array(value, name) for name, value in {"w": stored, "s": np.float32(1)}.items()]
    if kind == "QLinearMatMul":
        zero = numpy_helper.from_array(np.uint8(0), "z"), numpy_helper.from_array(np.int8(0), "wz")
        names = ["x", "s", "z", "w", "s", "wz", "s", "z"]
        nodes, io = [make_node("QLinearMatMul", names, ["y"])], onnx.TensorProto.UINT8
        constants += zero
    else:
        how = {"transB": 1} if kind == "Gemm, transposed" else {}
        nodes = [
            make_node("DequantizeLinear", ["w", "s"], ["floats"]),
            make_node(kind.split(",")[0], ["x", "floats"], ["y"], **how),
        ]
        io = onnx.TensorProto.FLOAT
    ends = [make_tensor_value_info(name, io, None) for name in "xy"]
    return make_model(make_graph(nodes, "linear", ends[:1], ends[1:], constants), opset_imports=[make_opsetid("", 20)])


@pytest.mark.parametrize("kind", ["Gemm", "Gemm, transposed", "MatMul", "QLinearMatMul"])
def test_rows_of_a_linear_layer_are_its_outputs(kind):
    weight = np.zeros((3, 6), np.int8)
    weight[1, 2:4] = 64, 65
    weight[:, 5] = 127  # its neighbour is 0
    proof = prove(linear(kind, weight), [Order.ROWS])
    assert (proof.layers, [str(one.pair) for one in proof.overflowing]) == (
        1,
        ["Overflow(row=1, a=(2,), b=(3,), total=129)"],
    )


def test_verify_proves_a_file_without_images(exported, overflowing, tmp_path, capsys):
    assert main(["verify", str(exported), "--json", str(tmp_path / "proof.json")]) == 0
    words = capsys.readouterr().out
    assert words.startswith("ONNX Runtime: no 16-bit sum can overflow on any input: ")
    assert json.loads((tmp_path / "proof.json").read_text())["ONNX Runtime"]["holds"] is True
    path, layer = overflowing
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(path)])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert f"first {layer}: channel 2" in printed.out
    assert printed.err == f"fxqat: {path}: 16-bit sums can overflow in ONNX Runtime; {exactness.REMEDY}\n"


def test_verify_of_a_model_wants_images(calibrated, tmp_path, capsys):
    path = fxqat.save(calibrated, tmp_path / "x.fxqat")
    assert main(["verify", str(path)]) == 2
    assert capsys.readouterr().err == ("fxqat: --data: is missing; expected images to compare codes on; give --data\n")


@pytest.fixture
def narrow(monkeypatch):
    """A machine whose runtimes add two products in 16 bits."""
    monkeypatch.setattr(exactness, "saturates", lambda runtime: True)
    monkeypatch.setattr(exactness, "processor", lambda: processor.Processor(name="Old x86", flags=("avx2",)))


def test_a_file_that_this_machine_cannot_compute(exported, overflowing, narrow):
    assert exactness.inexact_here(exported) is None
    path, layer = overflowing
    count = prove(path, [Order.ROWS]).layers
    assert exactness.inexact_here(path) == (
        f"wrong.onnx: ONNX Runtime on this processor (Old x86, no VNNI) cannot compute it exactly: 16-bit sums can "
        f"overflow in 1 of {count} integer layers (first {layer}); {exactness.REMEDY}"
    )


def test_a_machine_with_wide_sums_computes_every_file(overflowing, monkeypatch):
    monkeypatch.setattr(exactness, "saturates", lambda runtime: False)
    assert exactness.inexact_here(overflowing[0]) is None


def test_targets_that_need_wide_sums_say_so(narrow):
    assert exactness.target_here(TARGETS["ort-cpu"]) == (
        True,
        "ONNX Runtime adds two products in 16 bits here, which its weights never overflow",
    )
    assert exactness.target_here(TARGETS["ort-cpu-vnni"]) == (
        False,
        "ONNX Runtime adds two products in 16 bits here, which plain 8-bit weights overflow",
    )
    assert exactness.target_here(TARGETS["tensorrt"]) == (None, "TensorRT does not run here")


@pytest.mark.parametrize(("machine", "exact"), [("x86_64", True), ("aarch64", False)])
def test_a_machine_whose_kernels_are_known_to_differ_is_not_called_exact(machine, exact, monkeypatch):
    monkeypatch.setattr(Runtime, "installed", property(lambda self: True))
    monkeypatch.setattr(exactness.platform, "machine", lambda: machine)
    found, why = exactness.target_here(TARGETS["litert"])
    assert found is exact
    assert ("rounds halves up" in why) is not exact


def test_the_command_lists_every_target(narrow, capsys):
    assert main(["targets"]) == 0
    words = capsys.readouterr().out
    assert [name for name in TARGETS if f"\n{name} " not in words] == []
    assert "NOT EXACT HERE: ONNX Runtime adds two products in 16 bits here" in words
    assert main(["targets", "--json"]) == 0
    rows = {row["name"]: row["exact_here"] for row in json.loads(capsys.readouterr().out)["targets"]}
    assert (list(rows), rows["ort-cpu"], rows["ort-cpu-vnni"]) == (list(TARGETS), True, False)


def test_a_processor_is_read_from_the_system(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 sse avx_vnni\n")
    real = processor.Path
    monkeypatch.setattr(processor, "Path", lambda name: tmp_path / "cpuinfo" if name == "/proc/cpuinfo" else real(name))
    found = processor.processor.__wrapped__()
    assert (str(found), found.dot_products) == ("Some CPU (avx2, avx_vnni)", True)


def test_the_probe_sees_whether_sums_are_narrow(monkeypatch):
    def session(code):
        return lambda proto: lambda inputs: [np.full((1, 8, 1, 1), code, np.float32)]

    for code, narrow in ((255.0, False), (129.0, True)):
        monkeypatch.setitem(
            processor.RUNTIMES,
            "fake",
            replace(processor.RUNTIMES["ort"], name="fake", title="Fake", package="numpy", open=session(code)),
        )
        assert processor.saturates.__wrapped__("fake") is narrow
    if processor.processor().dot_products:
        assert not processor.saturates("ort")
    assert not processor.saturates("litert"), "its kernels pair no products, installed or not"
