"""The same integers in the arrangement that ONNX Runtime's kernels are quick with.

Its integer convolutions work on pixels whose channels lie side by side, and its graph optimizer carries that order
through the graph. What is slow there, with milliseconds of yolov8n's 33 before and after on 2 cores with VNNI: a
convolution of 3 channels, since the quick kernel takes channels by fours (2.8, 0.9); nearest-neighbour Resize of bytes
(1.7, 0.2); Concat as QLinearConcat (1.7, 1.2); Softmax over rows of 16 and its product (0.7, 0.5). Each rewrite moves
codes or sums the same products, so every code stays what it was; only the last one changes how floats behind the last
codes round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.helper import make_node

from fxqat.quant.pixel_groups import LANES, group_size, grouped_kernel
from fxqat.runtime.onnx.onnx_editing import Editing, attributes
from fxqat.runtime.reference.tensor_names import PERMUTED

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_EXP_MAX = 80.0  # a sum of 16 exponentials of it, 15 times each, is still a float32
_MOVING = ("Concat", "Reshape")


def arrange(proto: onnx.ModelProto) -> None:
    """Rewrite a file for one of ONNX Runtime's x86 targets, in place.

    Names of codes stay, but for those of the head's rows: see ``codes_in_rows``.
    """
    edit = Editing(proto)
    for rewrite in (move_codes, repeat_codes, group_pixels, codes_in_rows, expectation_as_quotient):
        for node in list(edit.nodes):
            rewrite(edit, node)
    edit.close()


def move_codes(edit: Editing, node: onnx.NodeProto) -> None:
    """Concat or Reshape between dequantize and quantize of one grid: the same of the codes."""
    quantize = _only_reader(edit, node.output[0], "QuantizeLinear")
    if node.op_type not in _MOVING or quantize is None:
        return
    floats = node.input if node.op_type == "Concat" else node.input[:1]
    makers = [edit.maker(name) for name in floats]
    if any(maker is None or not _is_one_grid(edit, maker, quantize) for maker in makers):
        return
    codes = [maker.input[0] for maker in makers if maker is not None]
    moved = make_node(node.op_type, [*codes, *node.input[len(codes) :]], quantize.output[:1], name=node.name)
    moved.attribute.extend(node.attribute)
    edit.replace([node, quantize], [moved])


def repeat_codes(edit: Editing, node: onnx.NodeProto) -> None:
    """Nearest-neighbour Resize by whole factors as Expand of the pixels: copies of whole rows of channels.

    ``(N, H, 1, W, 1, C) -> (N, H, h, W, w, C) -> (N, h H, w W, C)``.
    """
    if node.op_type != "Resize" or (quantize := _only_reader(edit, node.output[0], "QuantizeLinear")) is None:
        return
    source, factors = edit.maker(node.input[0]), edit.number(node.input[2])
    if source is None or factors is None or not _is_one_grid(edit, source, quantize) or not _repeats(node, factors):
        return
    _, channels, height, width = edit.shapes[source.input[0]]
    h, w = int(factors[2]), int(factors[3])
    base, out = f"{node.name}.repeat", quantize.output[0]
    apart = edit.constant(f"{base}.apart", np.array([0, height, 1, width, 1, channels]))
    times = edit.constant(f"{base}.times", np.array([1, 1, h, 1, w, 1]))
    joined = edit.constant(f"{base}.joined", np.array([0, height * h, width * w, channels]))
    new = [
        _transpose(source.input[0], f"{base}.last", LAST),
        make_node("Reshape", [f"{base}.last", apart], [f"{base}.pixels"], name=f"{base}.pixels"),
        make_node("Expand", [f"{base}.pixels", times], [f"{base}.copies"], name=f"{base}.copies"),
        make_node("Reshape", [f"{base}.copies", joined], [f"{base}.image"], name=f"{base}.image"),
        _transpose(f"{base}.image", out, FIRST),
    ]
    edit.replace([node, quantize], new)


def _repeats(node: onnx.NodeProto, factors: np.ndarray) -> bool:
    how = attributes(node)
    whole = len(factors) == 4 and list(factors[:2]) == [1, 1] and all(one == int(one) >= 1 for one in factors[2:])
    kind = (how.get("mode"), how.get("coordinate_transformation_mode"), how.get("nearest_mode"))
    return whole and kind == (b"nearest", b"asymmetric", b"floor")


def group_pixels(edit: Editing, node: onnx.NodeProto) -> None:
    """A convolution whose channels are no multiple of four, on groups of neighbouring pixels taken for one.

    A row of W pixels with C channels has the bytes of a row of W / p pixels with p C channels. A convolution of stride
    s over these gives p / s neighbouring outputs as its channels; its kernel has the old weights at their places and
    zeros elsewhere (see ``grouped_kernel``). For an image, p = 4: 12 channels instead of 3.
    """
    if node.op_type != "Conv" or (quantize := _only_reader(edit, node.output[0], "QuantizeLinear")) is None:
        return
    source, weight, *bias = (edit.maker(name) for name in node.input)
    group = _group_size(edit, node)
    constants = [one for one in (weight, *bias) if one is not None]
    if source is None or source.op_type != "DequantizeLinear" or group is None or len(constants) < len(node.input) - 1:
        return
    how: Any = attributes(node)
    (_, stride), pad = how["strides"], how["pads"][1]
    kernel, before, after = grouped_kernel(_constant(edit, constants[0]), group, stride, pad)
    channels, base, out = kernel.shape[1], f"{node.name}.grouped", quantize.output[0]
    sizes = edit.constant(f"{base}.sizes", np.array([0, 0, -1, channels]))
    back = edit.constant(f"{base}.back", np.array([0, 0, -1, kernel.shape[0] // (group // stride)]))
    padding = [how["pads"][0], before, how["pads"][2], after]
    new = [
        _transpose(source.input[0], f"{base}.last", LAST),
        make_node("Reshape", [f"{base}.last", sizes], [f"{base}.groups"], name=f"{base}.groups"),
        _transpose(f"{base}.groups", f"{base}.first", FIRST),
        _like(source, [f"{base}.first", *source.input[1:]], f"{base}.floats"),
        *(_tiled(edit, one, index, kernel, group // stride, base) for index, one in enumerate(constants)),
        make_node(
            "Conv",
            [f"{base}.floats", *(f"{base}.{index}" for index in range(len(constants)))],
            [f"{base}.conv"],
            name=node.name,
            kernel_shape=kernel.shape[2:],
            strides=[how["strides"][0], 1],
            pads=padding,
        ),
        _like(quantize, [f"{base}.conv", *quantize.input[1:]], f"{base}.codes"),
        _transpose(f"{base}.codes", f"{base}.outputs", LAST),
        make_node("Reshape", [f"{base}.outputs", back], [f"{base}.pixels"], name=f"{base}.pixels"),
        _transpose(f"{base}.pixels", out, FIRST),
    ]
    edit.replace([node, quantize], new)


def _group_size(edit: Editing, node: onnx.NodeProto) -> int | None:
    """Pixels to a group; None for a convolution that is quick as it stands or whose row does not divide."""
    how: Any = attributes(node)
    image, output = edit.shapes.get(node.input[0], ()), edit.shapes.get(node.output[0], ())
    if len(image) != 4 or len(output) != 4 or how.get("group", 1) != 1 or set(how.get("dilations", [1])) != {1}:
        return None
    channels, width, stride = image[1], image[3], how["strides"][1]
    if channels % LANES == 0 or width != stride * output[3]:
        return None
    group = group_size(channels, stride)
    return group if width % group == 0 else None


def _constant(edit: Editing, dequantize: onnx.NodeProto) -> np.ndarray:
    value = edit.number(dequantize.input[0])
    assert value is not None, "a weight is a constant of the file"
    return value


def _tiled(edit: Editing, one: onnx.NodeProto, index: int, kernel: np.ndarray, times: int, base: str) -> onnx.NodeProto:
    """The dequantize of the new kernel, or of the bias for each of the outputs of a group."""
    codes, *grid = (edit.number(name) for name in one.input)
    assert codes is not None
    values = [kernel if index == 0 else np.tile(codes, times)]
    values += [np.tile(number, times) if number.ndim else number for number in grid if number is not None]
    names = [edit.constant(f"{base}.{index}.{place}", value) for place, value in enumerate(values)]
    return _like(one, names, f"{base}.{index}")


def codes_in_rows(edit: Editing, node: onnx.NodeProto) -> None:
    """The head's levels, joined as rows of channels (N, A, C) instead of (N, C, A): as the convolutions leave them.

    The file then holds these codes under the site's name and ``.permuted.0.2.1``. Who wants them in the old order gets
    one Transpose of all levels; who transposed them gets them as they are.
    """
    if node.op_type != "Concat" or attributes(node).get("axis") not in (-1, 2):
        return
    levels = [edit.maker(name) for name in node.input]
    if not all(one is not None and _is_flatten(edit, one) for one in levels):
        return
    out, new, rows = node.output[0], list[onnx.NodeProto](), []
    for one in levels:
        assert one is not None
        name = f"{one.output[0]}{PERMUTED}0.2.1"
        sizes = edit.constant(f"{name}.sizes", np.array([0, -1, edit.shapes[one.input[0]][1]]))
        last = f"{one.name}.last"
        new.append(_transpose(one.input[0], last, LAST))
        new.append(make_node("Reshape", [last, sizes], [name], name=name))
        rows.append(name)
    joined = f"{out}{PERMUTED}0.2.1"
    new += [make_node("Concat", rows, [joined], axis=1, name=joined), _transpose(joined, out, [0, 2, 1])]
    edit.replace([node], new)
    for dequantize in edit.readers(out):
        _skip_transposes(edit, dequantize, joined)


def _is_flatten(edit: Editing, node: onnx.NodeProto) -> bool:
    source, flat = edit.shapes.get(node.input[0], ()), edit.shapes.get(node.output[0], ())
    return node.op_type == "Reshape" and len(source) == 4 and len(flat) == 3 and source[:2] == flat[:2]


def _skip_transposes(edit: Editing, dequantize: onnx.NodeProto, rows: str) -> None:
    turned = [one for one in edit.readers(dequantize.output[0]) if attributes(one).get("perm") == [0, 2, 1]]
    if dequantize.op_type == "DequantizeLinear" and turned:
        new = [_like(dequantize, [rows, *dequantize.input[1:]], one.output[0]) for one in turned]
        edit.replace(turned, new)


def expectation_as_quotient(edit: Editing, node: onnx.NodeProto) -> None:
    """Box distances as one product and one division: ``softmax(z) V = (exp(z) V) / (exp(z) 1)``.

    Only where z are codes whose grid ends below where an exponential overflows: else Softmax subtracts the maximum.
    """
    split, joined = edit.maker(node.input[0]), _only_reader(edit, node.output[0], "Reshape")
    if node.op_type != "Softmax" or split is None or joined is None or split.op_type != "Reshape":
        return
    source, product = edit.maker(split.input[0]), _only_reader(edit, joined.output[0], "MatMul")
    values = None if product is None else edit.number(product.input[1])
    if product is None or values is None or source is None or not _ends_below(edit, source, _EXP_MAX):
        return
    sides, base = values.shape[1], f"{node.name}.quotient"
    if edit.shapes[node.input[0]][2:] != (sides, len(values) // sides):
        return
    ones = np.repeat(np.eye(sides, dtype=values.dtype), len(values) // sides, axis=0)
    both = edit.constant(f"{base}.values", np.concatenate([values, ones], axis=1))
    halves = [f"{base}.sum", f"{base}.weight"]
    new = [
        make_node("Exp", split.input[:1], [f"{base}.exp"], name=f"{base}.exp"),
        make_node("MatMul", [f"{base}.exp", both], [f"{base}.sums"], name=f"{base}.sums"),
        make_node("Split", [f"{base}.sums"], halves, axis=2, num_outputs=2, name=f"{base}.split"),
        make_node("Div", halves, product.output[:1], name=base),
    ]
    edit.replace([split, node, joined, product], new)


def _ends_below(edit: Editing, dequantize: onnx.NodeProto, bound: float) -> bool:
    if dequantize.op_type != "DequantizeLinear":
        return False
    scale, zero = (edit.number(name) for name in dequantize.input[1:3])
    if scale is None or zero is None or scale.size != 1:
        return False
    kind = np.iinfo(zero.dtype)
    return float(scale) * max(kind.max - int(zero), int(zero) - kind.min) <= bound


def _only_reader(edit: Editing, name: str, kind: str) -> onnx.NodeProto | None:
    found = edit.readers(name)
    return found[0] if len(found) == 1 and found[0].op_type == kind else None


def _is_one_grid(edit: Editing, dequantize: onnx.NodeProto, quantize: onnx.NodeProto) -> bool:
    """Whether both stand for the same numbers: then to go through floats between them changes no code."""
    if dequantize.op_type != "DequantizeLinear":
        return False
    pairs = [(edit.number(a), edit.number(b)) for a, b in zip(dequantize.input[1:], quantize.input[1:], strict=True)]
    return all(a is not None and b is not None and a.size == 1 and np.array_equal(a, b) for a, b in pairs)


def _like(node: onnx.NodeProto, inputs: Sequence[str], output: str) -> onnx.NodeProto:
    made = make_node(node.op_type, inputs, [output], name=output)
    made.attribute.extend(node.attribute)
    return made


def _transpose(source: str, name: str, order: Sequence[int]) -> onnx.NodeProto:
    return make_node("Transpose", [source], [name], perm=list(order), name=name)
