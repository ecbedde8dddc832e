"""Layers whose pairs of weights lie at the bound of a 16-bit sum, as one ONNX file.

Every scale is a power of two, so scaling is exact in float32 in any order of operations: what differs is integers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import PAIR_MAX, pair_indices

IMAGES, SIZE = 4, 7
OUTPUT_ZERO = 128
INPUT_SCALE, WEIGHT_SCALES, OUTPUT_SCALE = 2.0**-8, (2.0**-3, 2.0**-4), 2.0**-6  # an output LSB is 32 or 64 products


@dataclass(frozen=True, kw_only=True)
class Block:
    """A convolution or a linear layer between quantizers.

    Attributes:
        name: of its input and, with ``.codes``, of its output.
        weight: shape (M, C / groups, Kh, Kw), or (M, K) of a linear layer; M is at least the number of pairs, so that
            ``one_above`` has a row for each.
        zero_point: of its input.
        openvino: the order in which OpenVINO reads its filters on AVX2.
    """

    name: str
    weight: tuple[int, ...]
    groups: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0
    zero_point: int = 0
    openvino: Order = Order.TAPS

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (IMAGES, self.weight[1] * self.groups, *[SIZE] * (len(self.weight) - 2))

    def pairs(self, orders: Sequence[Order]) -> np.ndarray:
        """Flat indices in a filter, (P, 2)."""
        return pair_indices(self.weight, orders, groups=self.groups).numpy()


BLOCKS = (
    Block(name="1x1", weight=(16, 16, 1, 1)),
    Block(name="1x1 of 7", weight=(5, 7, 1, 1), zero_point=3),
    Block(name="3x3 of 3", weight=(16, 3, 3, 3)),
    Block(name="3x3 of 3, stride 2", weight=(16, 3, 3, 3), stride=2, pad=1),
    Block(name="3x3 of 12", weight=(56, 12, 3, 3), pad=1, zero_point=100),
    Block(name="2x3 of 12, stride 2", weight=(40, 12, 2, 3), stride=2),
    Block(name="3x3 of 5, dilation 2", weight=(23, 5, 3, 3), dilation=2),
    Block(name="3x3 of 16, stride 2", weight=(72, 16, 3, 3), stride=2, pad=1),
    Block(name="2 groups of 4", weight=(36, 4, 3, 3), groups=2),
    Block(name="2 groups of 3", weight=(26, 3, 3, 3), groups=2, zero_point=9, openvino=Order.ROWS),
    Block(name="4 groups of 1, 2 outputs each", weight=(8, 1, 3, 3), groups=4, openvino=Order.ROWS),
    Block(name="depthwise of 16", weight=(16, 1, 3, 3), groups=16, pad=1),
    Block(name="depthwise of 12", weight=(12, 1, 5, 5), groups=12, zero_point=7),
    Block(name="linear of 13", weight=(8, 13), zero_point=5),
)


def at_the_bound(block: Block, orders: Sequence[Order]) -> np.ndarray:
    """int8 weights of 1 to 127 in which no pair of one sign is over the bound, and most lie on it.

    The signs of every other row are all alike.
    """
    draw = np.random.default_rng(zlib.crc32(block.name.encode()))
    signs = draw.choice([-1, 1], (block.weight[0], np.prod(block.weight[1:])))
    signs[::2] = signs[::2, :1]
    filters = signs * draw.integers(64, 128, signs.shape)
    for a, b in block.pairs(orders):
        over = np.abs(filters[:, a] + filters[:, b]) > PAIR_MAX
        filters[over, b] = (signs * PAIR_MAX)[over, b] - filters[over, a]
    return filters.reshape(block.weight).astype(np.int8)


def one_above(block: Block, weight: np.ndarray, order: Order) -> np.ndarray:
    """The same with one pair of each row one above the bound, in turn each pair of ``order``."""
    filters, pairs = weight.reshape(len(weight), -1).copy(), block.pairs([order])
    for row in range(len(filters) if len(pairs) else 0):
        filters[row, pairs[row % len(pairs)]] = np.array([64, PAIR_MAX + 1 - 64]) * np.sign(filters[row, 0])
    return filters.reshape(weight.shape)


def images(block: Block) -> np.ndarray:
    """Input codes: 255 everywhere in the first image, near it in the others."""
    codes = np.random.default_rng(0).integers(240, 256, block.input_shape)
    codes[0] = 255
    return codes


def floats(block: Block) -> np.ndarray:
    """The images as the file takes them, float32."""
    return ((images(block) - block.zero_point) * INPUT_SCALE).astype(np.float32)


def bias(block: Block, weight: np.ndarray) -> np.ndarray:
    """int32 (M,): takes the sum that the first image makes off, so that its output is within the codes."""
    within = 100 * OUTPUT_SCALE / (INPUT_SCALE * max(WEIGHT_SCALES))
    drawn = np.random.default_rng(0).integers(-within, within, len(weight))
    return (drawn - (255 - block.zero_point) * weight.reshape(len(weight), -1).sum(1, dtype=np.int64)).astype(np.int32)


def weight_scales(block: Block) -> np.ndarray:
    """float32 (M,)."""
    return np.resize(np.float32(WEIGHT_SCALES), block.weight[0])


def model(weights: Mapping[Block, np.ndarray]) -> onnx.ModelProto:
    """A file of all blocks side by side, each from floats to codes."""
    constants = [
        numpy_helper.from_array(value, f"{block.name}.{name}")
        for block, weight in weights.items()
        for name, value in _constants(block, weight).items()
    ]
    graph = helper.make_graph(
        [node for block in weights for node in _nodes(block)],
        "blocks",
        [helper.make_tensor_value_info(block.name, TensorProto.FLOAT, block.input_shape) for block in weights],
        [helper.make_empty_tensor_value_info(f"{block.name}.codes") for block in weights],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True)


def _constants(block: Block, weight: np.ndarray) -> dict[str, np.ndarray]:
    scales = weight_scales(block)
    return {
        "x.scale": np.array(INPUT_SCALE, np.float32),
        "x.zero": np.array(block.zero_point, np.uint8),
        "w": weight,
        "w.scale": scales,
        "w.zero": np.zeros(len(weight), np.int8),
        "b": bias(block, weight),
        "b.scale": np.float32(INPUT_SCALE) * scales,
        "b.zero": np.zeros(len(weight), np.int32),
        "y.scale": np.array(OUTPUT_SCALE, np.float32),
        "y.zero": np.array(OUTPUT_ZERO, np.uint8),
    }


def _nodes(block: Block) -> Iterator[onnx.NodeProto]:
    def named(*names: str) -> list[str]:
        return [f"{block.name}.{name}" for name in names]

    yield helper.make_node("QuantizeLinear", [block.name, *named("x.scale", "x.zero")], named("x"))
    yield helper.make_node("DequantizeLinear", named("x", "x.scale", "x.zero"), named("x.float"))
    for one in ("w", "b"):
        yield helper.make_node(
            "DequantizeLinear", named(one, f"{one}.scale", f"{one}.zero"), named(f"{one}.float"), axis=0
        )
    how = {
        "strides": [block.stride] * 2,
        "pads": [block.pad] * 4,
        "dilations": [block.dilation] * 2,
        "group": block.groups,
    }
    operation, given = ("Conv", how) if len(block.weight) == 4 else ("Gemm", {"transB": 1})
    yield helper.make_node(operation, named("x.float", "w.float", "b.float"), named("y"), **given)
    yield helper.make_node("QuantizeLinear", named("y", "y.scale", "y.zero"), named("codes"))
