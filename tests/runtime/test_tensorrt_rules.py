"""TensorRT's rules for explicit quantization: our file keeps them, and a file that breaks one is told at its node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fxqat
from fxqat.cli import main
from fxqat.runtime.onnx.tensorrt_rules import RULES, check


class Blocks:
    """A network under construction; each method gives the name of the value that it makes."""

    def __init__(self):
        self.nodes, self.numbers = [], []

    def number(self, name, value):
        self.numbers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind, inputs, name, **options):
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **options))
        return name

    def rounded(self, value, name, *, scale=0.1, zero=0, kind=np.int8, **options):
        """A QuantizeLinear and a DequantizeLinear."""
        numbers = [self.number(f"{name}.scale", np.float32(scale)), self.number(f"{name}.zero", kind(zero))]
        codes = self.node("QuantizeLinear", [value, *numbers], f"{name}.codes", **options)
        return self.node("DequantizeLinear", [codes, *numbers], name, **options)

    def weight(self, name, *, axis=0, quantized=True, shape=(4, 4, 1, 1)):
        if not quantized:
            return self.number(name, np.ones(shape, np.float32))
        scale = self.number(f"{name}.scale", np.full(4, 0.01, np.float32))
        zero = self.number(f"{name}.zero", np.zeros(4, np.int8))
        codes = self.number(f"{name}.codes", np.ones(shape, np.int8))
        return self.node("DequantizeLinear", [codes, scale, zero], name, axis=axis)

    def bias(self, name, *, quantized=False):
        if not quantized:
            return self.number(name, np.zeros(4, np.float32))
        scale = self.number(f"{name}.scale", np.float32(0.01))
        return self.node("DequantizeLinear", [self.number(f"{name}.codes", np.zeros(4, np.int32)), scale], name)

    def conv(self, x, name, *, bias=False, **options):
        return self.node(
            "Conv", [x, self.weight(f"{name}.weight", **options), self.bias(f"{name}.bias", quantized=bias)], name
        )

    def model(self, *outputs):
        def info(name):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8])

        graph = helper.make_graph(
            self.nodes, "network", [info("images")], [info(name) for name in outputs], self.numbers
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def block(blocks, x="images", **first):
    """A convolution and SiLU, all as they should be but for ``first``, the input's numbers."""
    x = blocks.rounded(x, "x", **first)
    y = blocks.conv(x, "conv")
    gate = blocks.node("Sigmoid", [y], "gate")
    y = blocks.rounded(blocks.node("Mul", [y, gate], "silu"), "y")
    return x, y


def found(blocks, *outputs):
    return [(one.rule, one.node, one.how) for one in check(blocks.model(*outputs)).findings]


def test_a_legal_file_keeps_every_rule():
    blocks = Blocks()
    x, y = block(blocks)
    total = blocks.node("Add", [blocks.conv(y, "second"), x], "sum")
    third = blocks.conv(blocks.rounded(total, "total"), "third")
    assert found(blocks, third) == []
    assert str(check(blocks.model(third))).splitlines() == [f"kept: {rule.name}: {rule.says}" for rule in RULES]


def first_numbers(rounded, **numbers):
    """A file whose first pair of Q and DQ has other numbers; ``rounded`` is what is found at each of the two."""

    def made(blocks):
        _, y = block(blocks, **numbers)
        return y, [("x.codes", rounded), ("x", rounded)]

    return made


def codes_that_are_moved(blocks):
    block(blocks)
    moved = blocks.node("Transpose", ["y.codes"], "moved", perm=[0, 1, 3, 2])
    last = blocks.node("DequantizeLinear", [moved, "y.scale", "y.zero"], "last")
    return last, [("y.codes", "its codes are read by Transpose"), ("last", "it reads codes from Transpose")]


def scales_along_inputs(blocks):
    y = blocks.conv(blocks.rounded("images", "x"), "conv", axis=1)
    return y, [("conv.weight", "its scales are along axis 1, and the output channels of conv along 0")]


def half_quantized(blocks):
    y = blocks.conv("images", "conv")
    z = blocks.conv(blocks.rounded(y, "y"), "second", quantized=False)
    first, second = "its weight is quantized and its input is not", "its input is, its weight not"
    return z, [("conv", first), ("second", second)]


def bias_of_codes(blocks):
    return blocks.conv(blocks.rounded("images", "x"), "conv", bias=True), [("conv", "its bias is quantized")]


def rounded_before_its_activation(blocks):
    y = blocks.rounded(blocks.conv(blocks.rounded("images", "x"), "conv"), "y")
    z = blocks.node("Add", [blocks.node("Relu", [y], "relu"), y], "sum")
    between = "it stands between conv and"
    return z, [("y.codes", f"{between} relu (Relu)"), ("y.codes", f"{between} sum (Add)")]


def residual_in_float(blocks):
    total = blocks.node("Add", [blocks.conv(blocks.rounded("images", "x"), "conv"), "images"], "sum")
    how = "what is added to the layer in front of it is not quantized"
    return blocks.rounded(total, "total"), [("sum", how)]


def of_four(zero):
    return np.array(zero, np.int8)


BROKEN = {
    "zero_points": first_numbers("its zero point is -3", zero=-3),
    "int8": first_numbers("its codes are uint8", kind=np.uint8),
    "constant_scales": first_numbers("one of its scales is 0.0", scale=0.0),
    "pairs": codes_that_are_moved,
    "per_tensor_activations": first_numbers("it has 4 scales", scale=[0.1] * 4, zero=[0] * 4, kind=of_four, axis=1),
    "per_channel_weights": scales_along_inputs,
    "weighted_inputs": half_quantized,
    "float_biases": bias_of_codes,
    "fused_outputs": rounded_before_its_activation,
    "quantized_residuals": residual_in_float,
}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_a_file_that_breaks_a_rule(rule):
    blocks = Blocks()
    output, wanted = BROKEN[rule](blocks)
    seen = [(node, how) for name, node, how in found(blocks, output) if name == rule]
    assert seen == wanted
    assert f"broken: {rule}: " in str(check(blocks.model(output)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_its_source(rule):
    assert rule.source.startswith(
        ("https://docs.nvidia.com/deeplearning/tensorrt/", "https://github.com/onnx/onnx-tensorrt/")
    )


@pytest.fixture(scope="module")
def qat(small, images):
    return fxqat.calibrate(fxqat.prepare(small, "w8a8", target="tensorrt")[0], [images])


def test_the_file_that_we_export_keeps_them(qat, tmp_path, capsys):
    path = fxqat.export(qat, tmp_path / "tensorrt_int8.onnx", imgsz=64)
    assert main(["verify", str(path), "--target", "tensorrt"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"kept: {rule.name}: {rule.says}" for rule in RULES]


def failed(path):
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(path), "--target", "tensorrt"])
    return ended.value.code


def test_a_broken_file_ends_in_code_1(tmp_path, capsys):
    blocks = Blocks()
    output, _ = BROKEN["zero_points"](blocks)
    onnx.save(blocks.model(output), path := tmp_path / "x.onnx")
    assert failed(path) == 1
    assert capsys.readouterr().err == (
        f"fxqat: {path}: x.codes breaks zero_points: its zero point is -3 ({RULES[0].source}), and 1 more\n"
    )


def test_a_file_in_float_is_none(tmp_path, capsys):
    blocks = Blocks()
    onnx.save(blocks.model(blocks.node("Relu", ["images"], "y")), path := tmp_path / "x.onnx")
    assert failed(path) == 1
    assert capsys.readouterr().err == f"fxqat: {path}: nothing in it is quantized; TensorRT would run it in float\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x.onnx", "--target", "litert"], "--target: has no rules for 'litert'; expected tensorrt"),
        (
            ["x.fxqat", "--target", "tensorrt"],
            "x.fxqat: is no .onnx file; expected a file written by fxqat export --target tensorrt",
        ),
    ],
)
def test_refusals(words, says, capsys):
    assert main(["verify", *words]) == 2
    assert capsys.readouterr().err == f"fxqat: {says}\n"
