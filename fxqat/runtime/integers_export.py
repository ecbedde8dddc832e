"""The integer part of a detector as plain arrays and a list of operations, for FPGAs and kernels of one's own.

docs/examples/integers_reader.py computes it in numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxqat.errors import Problem
from fxqat.files import check_suffix, check_writable, replacing
from fxqat.graph.site import module_of, operation, site_of
from fxqat.models.detector import Detector, cut
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike
from fxqat.quant import ort_kernels
from fxqat.quant.arithmetic import ARITHMETICS, Arithmetic
from fxqat.quant.torch_ao import dequantize_per_tensor, quantize_per_tensor
from fxqat.runtime.integer_model import arithmetic_of
from fxqat.runtime.reference.fused_kernels import LOWEST, SiLU, computed_from, idle_nodes, silu
from fxqat.runtime.reference.redundant_qdq import as_exported
from fxqat.runtime.reference.tensor_names import CODES
from fxqat.targets import target_of

FORMAT = "fxqat integers 1"
_BYTE = np.float32(1 / 255)
Step = dict[str, Any]
Kernel = tuple[str, list[Any], Step]  # an operation's name, the quantize operations that it reads, its attributes


@torch.no_grad()
def export_integers(model: Detector, path: str | Path, *, imgsz: SizeLike = DEFAULT_SIZE) -> Path:
    """Write an .npz with ``graph``, a JSON text, and the arrays of its operations: ``NAME.weight`` int8 (O, I, kH, kW),
    ``NAME.bias`` int32 (O,), ``NAME.weight_scale`` and ``NAME.multiplier`` float32 (O,), ``NAME.table``, what becomes
    of each code or pair of codes.

    The JSON has ``operations`` in the order of execution, each with the tensor of codes that it makes (``name``, its
    ``scale``, ``zero_point``, ``low``, ``high``, ``dtype`` and ``shape`` without the batch), and ``outputs``, the
    tensors that the decode reads, which is in float and not in the file. A convolution's codes are
    ``clamp(rint(float32(sum) * multiplier) + zero_point, low, high)``; everything else is a table or moves codes.

    Args:
        model: stage ``int8``, of a target whose arithmetic is known.
        path: ends in .npz.
        imgsz: one side, or height and width, for the shapes.

    Raises:
        Problem: another stage or target, a path that cannot be written, or floats between integers.
    """
    path = Path(path)
    check_suffix(path, ".npz")
    check_writable(path)
    size = ImageSize.of(imgsz).checked(model.stride)
    name = arithmetic_of(model)
    if model.stage != "int8" or name is None:
        given = f"the model's integers are those of target {model.recipe.target}, whose arithmetic is not known"
        raise Problem("--integers", given, expected="a model of target ort-cpu, ort-arm or litert")
    graph = as_exported(cut(model.gm, 0).eval(), target_of(model.recipe.target))
    writer = _Writer(graph, ARITHMETICS[name], size)
    writer.run()
    says = {
        "format": FORMAT,
        "arithmetic": name,
        "imgsz": list(size.shape),
        "task": model.source.task,
        "names": dict(model.names),
        "policy": model.recipe.policy_name,
        "operations": writer.steps,
        "outputs": writer.outputs(),
    }
    arrays: dict[str, Any] = {"graph": np.array(json.dumps(says)), **writer.arrays}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return path


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the sizes of every tensor, without the batch."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes = dict[fx.Node, tuple[int, ...]]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = tuple(value.shape[1:])
        return value


class _Writer:
    """One walk over an INT8 graph.

    Attributes:
        steps: the operations.
        arrays: by ``NAME.what``.
    """

    def __init__(self, graph: fx.GraphModule, arithmetic: Arithmetic, size: ImageSize) -> None:
        self.graph, self.arithmetic = graph, arithmetic
        self.steps, self.arrays = list[Step](), dict[str, np.ndarray]()
        probe = _Shapes(graph)
        probe.run(torch.zeros(1, 3, *size.shape))
        self.shapes = probe.shapes
        nodes = list(graph.graph.nodes)
        self.silus = {node: found for node in nodes if (found := silu(node)) is not None}
        self.idle = idle_nodes(nodes, self.silus.values())
        self.named = dict[fx.Node, str]()
        self.read = set[fx.Node]()  # dequantized for what is written

    def run(self) -> None:
        """Walk."""
        for node in self.graph.graph.find_nodes(op="call_function", target=quantize_per_tensor):
            if node not in self.idle:
                self._write(node)

    def outputs(self) -> list[str]:
        """The tensors of codes that what is not written reads."""
        values = [node for node in self.graph.graph.nodes if node.target is dequantize_per_tensor]
        return [
            self.named[value.args[0]]
            for value in values
            if value.args[0] in self.named and any(not self._is_written(user) for user in value.users)
        ]

    def _is_written(self, node: fx.Node) -> bool:
        return node in self.read or node in self.idle

    def _write(self, node: Any) -> None:
        source, scale, zero_point, low, high, dtype = node.args
        name = site_of(node).removesuffix(CODES)
        kind, inputs, more = self._kernel(node, name) or self._moved(node, source)
        self.named[node] = name
        self.steps.append(
            {
                "name": name,
                "op": kind,
                "inputs": [self.named[one] for one in inputs],
                "scale": float(np.float32(scale)),
                "zero_point": zero_point,
                "low": low,
                "high": high,
                "dtype": str(dtype).removeprefix("torch."),
                "shape": list(self.shapes[node]),
                **more,
            }
        )

    def _kernel(self, node: Any, name: str) -> Kernel | None:
        """What a fused kernel computes on codes."""
        if (found := self.silus.get(node)) is not None:
            return self._silu(node, name, found)
        kernel: Any = computed_from(node)
        if kernel is None:
            return None
        if kernel.target in (torch.conv2d, F.linear):
            return self._layer(node, name, kernel)
        operands = [one.args[0] for one in kernel.all_input_nodes]
        if kernel.target is torch.sigmoid:
            (read,) = kernel.all_input_nodes
            table = self.arithmetic.sigmoid(_codes(read), *read.args[1:3], *node.args[1:5])
            return self._table("table", node, name, operands, table)
        a, b = kernel.args
        rows, columns = _codes(a).view(-1, 1).expand(256, 256), _codes(b).expand(256, 256)
        scales, zeros = (tuple(one.args[place] for one in (a, b, node)) for place in (1, 2))
        table = getattr(self.arithmetic, kernel.target.__name__)(rows, columns, scales, zeros, *node.args[3:5])
        return self._table("table of two", node, name, [a.args[0], b.args[0]], table)

    def _silu(self, node: Any, name: str, found: SiLU) -> Kernel:
        return self._table("table", node, name, [found.x], found.table(found.x.args[5], self.arithmetic))

    def _table(self, kind: str, node: Any, name: str, operands: list[Any], table: Tensor) -> Kernel:
        self.arrays[f"{name}.table"] = table.to(node.args[5]).numpy()
        return kind, operands, {"input_low": LOWEST[operands[0].args[5]]}

    def _layer(self, node: Any, name: str, kernel: Any) -> Kernel:
        x, weight, bias = kernel.args[:3]
        codes = self.graph.get_buffer(weight.args[0].target)
        scale = self._weight_scale(weight)
        self.arrays[f"{name}.weight"] = codes.view(*codes.shape, *[1] * (4 - codes.dim())).numpy()
        zeros = torch.zeros(len(codes), dtype=torch.int32)
        self.arrays[f"{name}.bias"] = (zeros if bias is None else self.graph.get_buffer(bias.args[0].target)).numpy()
        self.arrays[f"{name}.weight_scale"] = scale.expand(len(codes)).numpy()
        multiplier = ort_kernels.multiplier(float(x.args[1]), scale, node.args[1])
        self.arrays[f"{name}.multiplier"] = multiplier.expand(len(codes)).numpy()
        stride, padding, dilation, groups = kernel.args[3:] or ((1, 1), (0, 0), (1, 1), 1)
        geometry = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation), "groups": groups}
        return "convolution", [x.args[0]], {**geometry, "input_zero_point": x.args[2]}

    def _weight_scale(self, weight: Any) -> Tensor:
        scale = weight.args[1]
        return self.graph.get_buffer(str(scale.target)) if isinstance(scale, fx.Node) else torch.tensor([scale])

    def _moved(self, node: Any, source: Any) -> Kernel:
        """What only moves codes, or the image."""
        if source.op == "placeholder" and np.float32(node.args[1]) == _BYTE:
            return "image", [], {}
        move = _MOVES.get(operation(source))
        values = [source.args[0].args[0]] if operation(source) == "getitem" else source.all_input_nodes
        are_codes = all(one.target is dequantize_per_tensor and one.args[1:] == node.args[1:] for one in values)
        if move is None or not are_codes:
            raise Problem(
                site_of(source),
                f"{operation(source)} is computed in float, between integers",
                expected="integers from the image to the decode",
                remedy="quantize it in the policy, or export a file for a runtime",
            )
        self.read |= {source, source.args[0]} if operation(source) == "getitem" else {source}
        kind, more = move(source, self.shapes)
        return kind, [one.args[0] for one in values], more


def _codes(value: Any) -> Tensor:
    """All codes of a dequantized tensor, lowest first."""
    return torch.arange(256) + LOWEST[value.args[5]]


Shapes = Mapping[fx.Node, tuple[int, ...]]


def _concatenated(node: Any, shapes: Shapes) -> tuple[str, Step]:
    axis = node.args[1] if len(node.args) > 1 else 0
    return "concatenate", {"axis": axis % (len(shapes[node]) + 1)}


def _sliced(node: Any, shapes: Shapes) -> tuple[str, Step]:
    """A part of ``chunk`` or ``split`` along the channels."""
    divided, index = node.args
    start = sum(shapes[part][0] for part in divided.users if part.args[1] < index)
    return "slice", {"start": start, "stop": start + shapes[node][0]}


def _reshaped(node: Any, shapes: Shapes) -> tuple[str, Step]:
    return "reshape", {"shape": list(shapes[node])}


def _pooled(node: Any, shapes: Shapes) -> tuple[str, Step]:
    pool = module_of(node)
    return "max pool", {"kernel": pool.kernel_size, "stride": pool.stride, "padding": pool.padding}


def _enlarged(node: Any, shapes: Shapes) -> tuple[str, Step]:
    return "enlarge", {"factor": int(module_of(node).scale_factor)}


def _shuffled(node: Any, shapes: Shapes) -> tuple[str, Step]:
    return "pixel shuffle", {"factor": module_of(node).upscale_factor}


_MOVES: Mapping[str, Callable[[Any, Shapes], tuple[str, Step]]] = {
    "cat": _concatenated,
    "getitem": _sliced,
    "flatten": _reshaped,
    "Identity": _reshaped,
    "MaxPool2d": _pooled,
    "Upsample": _enlarged,
    "PixelShuffle": _shuffled,
}
