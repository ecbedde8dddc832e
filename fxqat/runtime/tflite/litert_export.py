"""LiteRT export: the INT8 reference graph as a full-integer .tflite file, through litert-torch."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from fxqat.errors import Problem
from fxqat.files import check_writable, replacing
from fxqat.graph.site import module_of, nearest, site_of
from fxqat.models.detector import Detector, cut
from fxqat.models.families.decode import AnchorGrid
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike
from fxqat.quant.torch_ao import (
    dequantize_per_channel,
    dequantize_per_tensor,
    quantize_per_channel,
    quantize_per_tensor,
)
from fxqat.runtime.reference.fused_kernels import computed_from
from fxqat.runtime.reference.metadata import metadata
from fxqat.runtime.reference.redundant_qdq import as_exported
from fxqat.runtime.reference.tensor_names import CODES, back
from fxqat.runtime.tflite.native_output import hidden
from fxqat.runtime.tflite.tflite_file import TFLiteFile, check_installed
from fxqat.runtime.tflite.tflite_floats import restore_floats
from fxqat.runtime.tflite.tflite_names import GraphTensor, lost, name_by_site
from fxqat.runtime.tflite.tflite_outputs import LAST, MAP
from fxqat.targets import target_of

FORMS = {
    "float": "float32 NHWC, RGB in 0..1",
    "uint8": "uint8 NHWC, RGB in 0..255",
    "int8": "int8 NHWC, RGB in 0..255 less 128",
}
_BYTE = (1 / 255, 0)


@torch.no_grad()
def export(
    model: Detector, path: str | Path, *, imgsz: SizeLike = DEFAULT_SIZE, batch: int = 1, input: str = "float"
) -> Path:
    """Write ``model`` with input ``images`` (B, height, width, 3) and the final outputs of its family, float32, as
    ``ultralytics.YOLO`` reads them: lengths on the image as parts of its size, maps (B, H, W, C).

    Values that are codes are named by their site, ``model.0.conv.codes``, with the order of axes where it is another:
    ``model.0.conv.codes.permuted.0.2.3.1``. Weights and biases are the codes of the graph.

    Args:
        model: stage ``int8``, of target ``litert``, or ``float``.
        path: ends in .tflite.
        imgsz: one side, or height and width, multiples of the model's stride.
        batch: images at a time.
        input: ``float``: float32 in 0..1; ``uint8``: bytes; ``int8``: bytes less 128.

    Raises:
        Problem: a bad size or path, another target, an unknown input, litert-torch is not installed, or it leaves an
            integer layer in float.
    """
    path = Path(path)
    size = ImageSize.of(imgsz).checked(model.stride)
    _check(model, path, batch, input)
    check_writable(path)
    graph = as_exported(cut(model.gm, 0).eval(), target_of(model.recipe.target))
    _check_input(graph, input)
    example = torch.zeros(batch, 3, *size.shape)
    probe = _Probe(graph)
    probe.run(example)
    layers = _integer_layers(graph)
    _fold_grids(graph, probe, size)
    _weights_as_floats(graph)
    _pools_apart(graph)
    file = TFLiteFile(_converted(graph, example, codes=bool(probe.tensors)))
    restore_floats(file, name_by_site(file, probe.tensors))
    _restore_codes(file, layers)
    _take(file, input)
    file.name_ends("images", [one.name for one in model.final])
    file.metadata = {**metadata(model, size, batch, dynamic=False), "input": FORMS[input]}
    with replacing(path) as temporary:
        file.write(temporary)
    return path


def _check(model: Detector, path: Path, batch: int, form: str) -> None:
    if path.suffix != ".tflite":
        raise Problem(path, f"ends in {path.suffix or 'nothing'!r}", expected="a name that ends in .tflite")
    if batch < 1:
        raise Problem("--batch", f"{batch} images at a time", expected="1 or more")
    if form not in FORMS:
        known = ", ".join(FORMS)
        raise Problem("--input", f"unknown form {form!r}", expected=f"one of: {known}", remedy=nearest(form, FORMS))
    if model.stage == "int8" and model.recipe.target != "litert":
        given = f"is a file for LiteRT, and the model was prepared for {model.recipe.target}"
        raise Problem(path, given, expected="a model of target litert", remedy="retarget it: --target litert")
    check_installed("litert_torch", "--target litert")


def _check_input(graph: fx.GraphModule, form: str) -> None:
    (source,) = graph.graph.find_nodes(op="placeholder")
    if form != "float" and any(user.target is not quantize_per_tensor for user in source.users):
        raise Problem("--input", f"{form}: the first layer computes in float", expected="float")


class _Probe(fx.Interpreter):
    """Runs a graph and keeps the sizes of what it quantizes, its anchor grids, and the rows of what each of these is
    computed with: the numbers of a box or of a point."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.tensors, self.grids = list[GraphTensor](), dict[fx.Node, Tensor]()
        self.rows = dict[fx.Node, int]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target is quantize_per_tensor:
            scale, zero_point = cast(tuple[float, int], n.args[1:3])
            self.tensors.append(
                GraphTensor(
                    site=site_of(n), shape=tuple(value.shape), scale=float(np.float32(scale)), zero_point=zero_point
                )
            )
        if n.op == "call_module" and isinstance(module_of(n), AnchorGrid):
            self.grids[n] = value
        for grid in self.grids.keys() & set(n.all_input_nodes):
            self.rows[grid] = value.shape[-2]
        return value


def _fold_grids(graph: fx.GraphModule, probe: _Probe, size: ImageSize) -> None:
    """Write anchor points and strides, which depend on the image's size alone, as constants, in place; strides as parts
    of that size, so that boxes come out as parts of it."""
    for node, grid in probe.grids.items():
        is_strides = module_of(node).item == 1
        name = f"grid_{len(graph._buffers)}"
        graph.register_buffer(name, _parts(grid, size, probe.rows[node]) if is_strides else grid)
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        graph.graph.erase_node(node)
    graph.recompile()


def _parts(strides: Tensor, size: ImageSize, rows: int) -> Tensor:
    """Strides (1, A) as parts of the image's size: (1, A) of a square, else (rows, A), across and down in turns."""
    if size.is_square:
        return strides / size.height
    return strides / torch.tensor([size.width, size.height] * (rows // 2))[:, None]


def _pools_apart(graph: fx.GraphModule) -> None:
    """Write each average ``pool(x)`` as ``2 pool(x / 2)``, the same bits, in place: the converter refuses one between
    codes of two scales, and behind a product it is none."""
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(module_of(node), _POOLS):
            continue
        with graph.graph.inserting_before(node):
            node.args = (graph.graph.call_function(operator.mul, (node.args[0], 0.5)), *node.args[1:])
        with graph.graph.inserting_after(node):
            doubled = graph.graph.call_function(operator.mul, (node, 2.0))
        node.replace_all_uses_with(doubled, delete_user_cb=lambda user, doubled=doubled: user is not doubled)
    graph.recompile()


_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def _weights_as_floats(graph: fx.GraphModule) -> None:
    """Write stored codes as the converter takes them, in place: a weight as ``quantize(float)``, a bias as floats.

    ``quantize(code * scale)`` is the code again. A bias may lose its last bits in float32: see ``_restore_codes``.
    """
    for node in list(graph.graph.nodes):
        if node.target not in _STORED or node.args[0].op != "get_attr":
            continue
        codes = graph.get_buffer(node.args[0].target)
        scale = _scale(graph, node)
        name = f"floats_{len(graph._buffers)}"
        graph.register_buffer(name, codes.float() * scale.view(-1, *[1] * (codes.dim() - 1)))
        with graph.graph.inserting_before(node):
            floats = graph.graph.get_attr(name)
            if codes.dtype is torch.int32:
                node.replace_all_uses_with(floats)
            else:
                node.args = (graph.graph.call_function(_STORED[node.target], (floats, *node.args[1:])), *node.args[1:])
    graph.graph.eliminate_dead_code()
    graph.recompile()


_STORED: Mapping[Any, Any] = {dequantize_per_channel: quantize_per_channel, dequantize_per_tensor: quantize_per_tensor}


def _scale(graph: fx.GraphModule, node: Any) -> Tensor:
    if node.target is dequantize_per_channel:
        return graph.get_buffer(node.args[1].target)
    return torch.tensor([node.args[1]])


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """The codes of a layer's weight (O, I, ...) and bias."""

    weight: np.ndarray
    bias: np.ndarray | None


def _integer_layers(graph: fx.GraphModule) -> dict[str, _Layer]:
    """The integer layers by the site of the tensor that they make."""
    found: dict[str, _Layer] = {}
    for node in graph.graph.find_nodes(op="call_function", target=quantize_per_tensor):
        kernel = computed_from(node)
        stored = [_codes(graph, one) for one in kernel.args[1:3]] if kernel is not None else []
        if stored and stored[0] is not None:
            found[site_of(node)] = _Layer(weight=stored[0], bias=stored[1] if len(stored) > 1 else None)
    return found


def _codes(graph: fx.GraphModule, node: Any) -> np.ndarray | None:
    stored = isinstance(node, fx.Node) and node.target in _STORED and node.args[0].op == "get_attr"  # type: ignore[union-attr]
    return graph.get_buffer(node.args[0].target).numpy() if stored else None


class _ChannelsLast(nn.Module):
    """The graph on images (B, H, W, 3), maps among its outputs likewise."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.detector = graph  # "graph" would be that of the GraphModule that the converter makes of this

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the graph gives."""
        found = self.detector(images.permute(0, 3, 1, 2))
        outputs = found if isinstance(found, tuple) else (found,)
        return tuple(one.permute(LAST) if one.dim() == MAP else one for one in outputs)


def _converted(graph: fx.GraphModule, example: Tensor, *, codes: bool) -> bytes:
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    with hidden(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter warns about its own internals
        import litert_torch
        from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
        from litert_torch.quantize.quant_config import QuantConfig

        # only says that the graph's own quantize operations are to be taken for integers
        marks = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config()))
        images = example.permute(0, 2, 3, 1).contiguous()
        model = litert_torch.convert(_ChannelsLast(graph).eval(), (images,), quant_config=marks if codes else None)
        return bytes(model.model_content())


def _restore_codes(file: TFLiteFile, layers: Mapping[str, _Layer]) -> None:
    """Write each bias as the graph has it.

    Raises:
        Problem: an integer layer of the graph is not in the file.
        RuntimeError: a weight is not the graph's.
    """
    made = {back(file.name(one), 0)[0]: operation for operation in file.graph.operators for one in operation.outputs}
    for site, layer in layers.items():
        operation = made.get(site)
        if operation is None:
            raise lost(site)
        weight = file.constant(operation.inputs[1])
        if weight is None or not np.array_equal(weight, _as_stored(layer.weight, file.kind(operation))):
            raise RuntimeError(f"the weight behind {site} is not what the graph has")
        bias = np.zeros(len(layer.weight), np.int32) if layer.bias is None else layer.bias
        file.rename(operation.inputs[1], f"{site.removesuffix(CODES)}.weight")
        file.rename(operation.inputs[2], f"{site.removesuffix(CODES)}.bias")
        held = file.constant(operation.inputs[2])
        if held is None or not np.array_equal(held, bias):
            file.set_constant(operation.inputs[2], bias)


def _as_stored(weight: np.ndarray, kind: str) -> np.ndarray:
    """A weight (O, I, H, W) or (O, I) as LiteRT has it: (O, H, W, I), or (1, H, W, O) of a convolution by channel."""
    if weight.ndim == 2:
        return weight
    return weight.transpose(1, 2, 3, 0) if kind == "DEPTHWISE_CONV_2D" else weight.transpose(0, 2, 3, 1)


def _take(file: TFLiteFile, form: str) -> None:
    """Let the file's input be what ``form`` says."""
    (source,) = file.graph.inputs
    kind, numbers = ("float32", None) if form == "float" else (form, _BYTE)
    if file.type(source) != kind:
        file.quantize_input(kind, numbers)
