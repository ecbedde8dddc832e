"""ONNX export: the INT8 reference graph as QuantizeLinear and DequantizeLinear around plain operations, through
torch.onnx."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import fx

from fxqat.errors import Problem
from fxqat.files import check_suffix, check_writable, replacing
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, cut
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.runtime.onnx.onnx_simplify import simplify
from fxqat.runtime.onnx.opsets import OPSETS, WRITTEN, to_opset
from fxqat.runtime.onnx.ort_layout import arrange
from fxqat.runtime.onnx.uint8_input import SAYS, check_input, take_bytes
from fxqat.runtime.reference.metadata import metadata
from fxqat.runtime.reference.redundant_qdq import as_exported
from fxqat.targets import target_of


def export(
    model: Detector,
    path: str | Path,
    *,
    imgsz: SizeLike = DEFAULT_SIZE,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 20,
    input: str = "float",
) -> Path:
    """Write ``model`` with input ``images`` (B, 3, height, width) float32 in 0..1, or bytes (see ``border``), and the
    final outputs of its family, float32.

    Values that are codes are named by their site, ``model.0.conv.codes``; integer weights stay integers in the file.

    Raises:
        Problem: a bad size, opset or path, or an operation that the opset lacks.
    """
    path = Path(path)
    size = ImageSize.of(imgsz).checked(model.stride)
    _check(path, batch, opset)
    check_input(input)
    check_writable(path)
    target = target_of(model.recipe.target)
    graph = as_exported(cut(model.gm, 0).eval(), target)
    names = [one.name for one in model.final]
    _tell_sites(graph)
    proto = _exported(graph, names, size, batch, dynamic)
    _name_by_site(proto, graph)
    _strip(proto)
    if model.stage == "int8" and target is not None and target.channels_last:
        arrange(proto)
    if input != "float":
        take_bytes(proto, input)
    says = {**metadata(model, size, batch, dynamic=dynamic), "input": SAYS[input]}
    onnx.helper.set_model_props(proto, {key: str(value) for key, value in says.items()})
    to_opset(proto, opset)
    onnx.checker.check_model(proto, full_check=True)
    with replacing(path) as temporary:
        onnx.save(proto, temporary)
    return path


def _check(path: Path, batch: int, opset: int) -> None:
    check_suffix(path, ".onnx")
    if batch < 1:
        raise Problem("--batch", f"{batch} images at a time", expected="1 or more")
    if opset not in OPSETS:
        raise Problem("--opset", f"{opset}", expected=f"{OPSETS[0]} to {OPSETS[-1]}")


def _exported(graph: fx.GraphModule, names: list[str], size: ImageSize, batch: int, dynamic: bool) -> onnx.ModelProto:
    # A batch of one would be taken for a constant, so a dynamic batch is traced with two images.
    example = torch.zeros(max(batch, 2) if dynamic else batch, 3, *size.shape)
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch.onnx warns about its own internals
        loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=WRITTEN,
                input_names=["images"],
                output_names=names,
                dynamic_shapes=shapes,
                verbose=False,
                optimize=dynamic,  # only its rules find that a shape has one free size at most
            )
            if program is not None and not dynamic:
                simplify(program.model)
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model_proto


def _strip(proto: onnx.ModelProto) -> None:
    """Drop stack traces and other notes of the exporter: a fifth of the file, and paths of the machine that made it."""
    graph = proto.graph
    for part in [proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        part.doc_string = ""
        del part.metadata_props[:]
    del graph.value_info[:]
    for function in proto.functions:
        function.doc_string = ""


def _tell_sites(graph: fx.GraphModule) -> None:
    """Give every quantize operation its site as the module it stands in, which torch.onnx writes beside its node."""
    for node in _quantized(graph):
        node.meta["nn_module_stack"] = {"site": (site_of(node), "site")}


def _name_by_site(proto: onnx.ModelProto, graph: fx.GraphModule) -> None:
    """Give each value of codes the name of its site, by what ``_tell_sites`` had torch.onnx write."""
    theirs = {_told_site(node): node for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    ours = [site_of(node) for node in _quantized(graph)]
    if sorted(theirs) != sorted(ours):
        odd = sorted(set(ours).symmetric_difference(theirs))
        raise RuntimeError(f"the graph has {len(ours)} quantize operations, its export {len(theirs)}: {odd[:3]}")
    names = {node.output[0]: site for site, node in theirs.items()}
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _quantized(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target is quantize_per_tensor]


def _told_site(node: onnx.NodeProto) -> str:
    """The innermost module that ``node`` stood in."""
    scopes = next(entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes")
    return str(ast.literal_eval(scopes)[-2])
