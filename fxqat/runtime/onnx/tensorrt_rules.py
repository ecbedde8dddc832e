"""TensorRT's rules for explicit quantization, checked in an ONNX file without a GPU.

A file that breaks a rule is refused by TensorRT's parser or builder, or runs in float where it was meant for integers.
The rules are those of TensorRT 10 and 11; each names the page that states it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fxqat.runtime.onnx.onnx_editing import Editing, attributes

_LIBRARY = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library"
TYPES = f"{_LIBRARY}/work-quantized-types.html"
EXPLICIT = f"{_LIBRARY}/quantized-types-explicit-quantization.html"
LAYER = "https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/c-api/classnvinfer1_1_1_i_quantize_layer.html"
PARSER = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
# The axis of output channels in each weighted operation's weight.
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
# What TensorRT computes in the kernel of the layer in front.
_FUSED = ("BatchNormalization", "Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Add")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One node that breaks a rule, and how, in a few words."""

    rule: str
    node: str
    how: str

    def __str__(self) -> str:
        return f"{self.node} breaks {self.rule}: {self.how}"


Broken = Callable[["Graph"], Iterator[tuple[onnx.NodeProto, str]]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        name: a short name.
        says: the rule in a sentence.
        source: the address of the page that states it, and its section.
        broken: the nodes of a graph that break it, and how.
    """

    name: str
    says: str
    source: str
    broken: Broken


class Graph(Editing):
    """A graph under check; constants may be initializers or Constant nodes."""

    def of(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """The nodes of these kinds, in order."""
        return (node for node in self.nodes if node.op_type in kinds)

    def kind(self, name: str) -> str:
        """The operation that computes a value, "" where none does."""
        maker = self.maker(name)
        return "" if maker is None else maker.op_type

    def number(self, name: str) -> np.ndarray | None:
        """The constant called ``name``, None where it is computed."""
        maker = self.maker(name)
        if maker is not None and maker.op_type == "Constant":
            held = attributes(maker).get("value")
            return numpy_helper.to_array(held) if isinstance(held, TensorProto) else None
        return super().number(name)

    def zero_point(self, node: onnx.NodeProto) -> np.ndarray | None:
        """A QuantizeLinear's or DequantizeLinear's, None where it is left out or computed."""
        return self.number(node.input[2]) if len(node.input) > 2 and node.input[2] else None

    def codes(self, node: onnx.NodeProto) -> str:
        """numpy's name of the codes' type, "uint8" where nothing says it."""
        zero, held = self.zero_point(node), self.number(node.input[0]) if node.op_type == _DQ else None
        if held is not None or zero is not None:
            return str((held if zero is None else zero).dtype)  # type: ignore[union-attr]
        maker = self.maker(node.input[0])
        return self.codes(maker) if node.op_type == _DQ and maker is not None and maker.op_type == _Q else "uint8"

    def of_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a QuantizeLinear or DequantizeLinear is that of a constant."""
        maker = self.maker(node.input[0])
        if self.number(node.input[0]) is not None:
            return True
        return maker is not None and maker.op_type == _Q and self.number(maker.input[0]) is not None


def _zero_points(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q, _DQ):
        if len(node.input) > 2 and node.input[2] and ((zero := graph.zero_point(node)) is None or zero.any()):
            yield node, "its zero point is computed" if zero is None else f"its zero point is {_largest(zero)}"


def _largest(zero: np.ndarray) -> int:
    return int(zero.flat[np.abs(zero.astype(np.int64)).argmax()])


def _types(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q, _DQ):
        if (kind := graph.codes(node)) != "int8":
            yield node, f"its codes are {kind}"


def _scales(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q, _DQ):
        scale = graph.number(node.input[1])
        if scale is None:
            yield node, "its scale is computed"
        elif not (np.isfinite(scale) & (scale > 0)).all():
            yield node, f"one of its scales is {scale.flat[np.argmin(np.where(np.isfinite(scale), scale, -np.inf))]}"


def _pairs(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q):
        others = [reader.op_type for reader in graph.readers(node.output[0]) if reader.op_type != _DQ]
        if others or not graph.readers(node.output[0]):
            yield node, f"its codes are read by {others[0]}" if others else "its codes are an output of the file"
    for node in graph.of(_DQ):
        if graph.kind(node.input[0]) != _Q and graph.number(node.input[0]) is None:
            yield node, f"it reads codes from {graph.kind(node.input[0]) or 'an input of the file'}"


def _activations(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q, _DQ):
        scale = graph.number(node.input[1])
        if scale is not None and scale.size > 1 and not graph.of_weight(node):
            yield node, f"it has {scale.size} scales"


def _weights(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for layer in graph.of(*_CHANNELS):
        node = graph.maker(layer.input[1])
        if node is None or node.op_type != _DQ or (scale := graph.number(node.input[1])) is None or scale.size < 2:
            continue
        rank = len(held.shape) if (held := _held(graph, node)) is not None else 4
        wanted, given = _channels(layer) % rank, int(attributes(node).get("axis", 1)) % rank  # type: ignore[call-overload]
        if given != wanted:
            yield node, f"its scales are along axis {given}, and the output channels of {_name(layer)} along {wanted}"


def _held(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    maker = graph.maker(node.input[0])
    return graph.number(maker.input[0] if maker is not None and maker.op_type == _Q else node.input[0])


def _channels(layer: onnx.NodeProto) -> int:
    transposed = layer.op_type == "Gemm" and attributes(layer).get("transB", 0)
    return 0 if transposed else _CHANNELS[layer.op_type]


def _inputs(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for layer in graph.of(*_CHANNELS):
        are_codes = [graph.kind(name) == _DQ for name in layer.input[:2]]
        if any(are_codes) and not all(are_codes):
            yield (
                layer,
                "its weight is quantized and its input is not" if are_codes[1] else "its input is, its weight not",
            )


def _biases(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for layer in graph.of("Conv", "ConvTranspose", "Gemm"):
        if len(layer.input) > 2 and graph.kind(layer.input[2]) == _DQ:
            yield layer, "its bias is quantized"


def _fusions(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of(_Q):
        layer = graph.maker(node.input[0])
        if layer is None or layer.op_type not in _CHANNELS:
            continue
        values = [reader for reader in graph.readers(node.output[0]) if reader.op_type == _DQ]
        for reader in (one for value in values for one in graph.readers(value.output[0]) if one.op_type in _FUSED):
            yield node, f"it stands between {_name(layer)} and {_name(reader)} ({reader.op_type})"


def _residuals(graph: Graph) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.of("Add"):
        if not any(reader.op_type == _Q for reader in graph.readers(node.output[0])):
            continue
        makers = [graph.maker(name) for name in node.input]
        direct = [one is not None and one.op_type in _CHANNELS for one in makers]
        rest = [one for one, is_direct in zip(makers, direct, strict=True) if not is_direct]
        if any(direct) and not all(one is not None and one.op_type == _DQ for one in rest):
            yield node, "what is added to the layer in front of it is not quantized"


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


RULES = (
    Rule(
        name="zero_points",
        says="Every zero point is 0.",
        source=f"{TYPES}: quantization is symmetric; {PARSER}: y_zero_point and x_zero_point must be 0",
        broken=_zero_points,
    ),
    Rule(
        name="int8",
        says="Codes are signed 8-bit integers.",
        source=f"{TYPES}: supported data types are INT8 (signed), INT4, FP8 and FP4; {PARSER}: DequantizeLinear",
        broken=_types,
    ),
    Rule(
        name="constant_scales",
        says="Every scale is a constant above 0.",
        source=f"{LAYER}: the scale tensor must be a build-time constant, its coefficients positive",
        broken=_scales,
    ),
    Rule(
        name="pairs",
        says="Codes go from a QuantizeLinear, or a constant, to a DequantizeLinear alone.",
        source=f"{EXPLICIT}, ONNX Support: a fake quantization is a pair of QuantizeLinear and DequantizeLinear",
        broken=_pairs,
    ),
    Rule(
        name="per_tensor_activations",
        says="An activation has one scale.",
        source=f"{EXPLICIT}, Q/DQ Layer-Placement Recommendations: per-tensor quantization for activations",
        broken=_activations,
    ),
    Rule(
        name="per_channel_weights",
        says="The scales of a weight are along its output channels.",
        source=f"{EXPLICIT}, Q/DQ Layer-Placement Recommendations: per-channel quantization for weights",
        broken=_weights,
    ),
    Rule(
        name="weighted_inputs",
        says="Of a convolution or a matrix product, input and weight are quantized, or neither is.",
        source=f"{EXPLICIT}, Q/DQ Layer-Placement Recommendations: quantize all inputs of weighted operations",
        broken=_inputs,
    ),
    Rule(
        name="float_biases",
        says="A bias is in float.",
        source=f"{PARSER}: DequantizeLinear takes no INT32",
        broken=_biases,
    ),
    Rule(
        name="fused_outputs",
        says="No QuantizeLinear stands between a layer and the activation, Add or batch norm that its kernel computes.",
        source=f"{EXPLICIT}, Q/DQ Layer-Placement Recommendations: do not quantize the outputs of weighted operations",
        broken=_fusions,
    ),
    Rule(
        name="quantized_residuals",
        says="What is added to a layer's output, and quantized after that, is quantized itself.",
        source=f"{EXPLICIT}, Q/DQ Layer-Placement Recommendations: quantize the residual input in skip connections",
        broken=_residuals,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the rules say of a file.

    Attributes:
        quantized: QuantizeLinear and DequantizeLinear nodes.
        findings: every node that breaks a rule, rule by rule.
    """

    quantized: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        broken = {one.rule for one in self.findings}
        words = [f"{'broken' if rule.name in broken else 'kept'}: {rule.name}: {rule.says}" for rule in RULES]
        return "\n".join(words)


def check(model: onnx.ModelProto | str | Path) -> Check:
    """Hold a file, read or by its path, against ``RULES``."""
    graph = Graph(model if isinstance(model, onnx.ModelProto) else onnx.load(model))
    found = [Finding(rule=rule.name, node=_name(node), how=how) for rule in RULES for node, how in rule.broken(graph)]
    return Check(quantized=sum(1 for _ in graph.of(_Q, _DQ)), findings=tuple(found))
