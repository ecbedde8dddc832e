"""ONNX export: the INT8 reference graph as QuantizeLinear and DequantizeLinear around plain operations, through
torch.onnx."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import torch
from torch import fx

from fxqat.data.images import check_imgsz
from fxqat.errors import Problem
from fxqat.files import check_writable, replacing
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, cut
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.runtime.metadata import metadata
from fxqat.runtime.ort_layout import arrange
from fxqat.runtime.redundant_qdq import as_exported
from fxqat.runtime.uint8_input import SAYS, check_input, take_bytes
from fxqat.targets import TARGETS

OPSETS = (19, 20)


def export(
    model: Detector,
    path: str | Path,
    *,
    imgsz: int = 640,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 20,
    input: str = "float",
) -> Path:
    """Write ``model`` with input ``images`` (B, 3, imgsz, imgsz) float32 in 0..1, or bytes (see ``border``), and output
    ``output0`` (B, 4 + nc, A) float32.

    Values that are codes are named by their site, ``model.0.conv.codes``; integer weights stay integers in the file.

    Raises:
        Problem: a bad size, opset or path.
    """
    path = Path(path)
    _check(path, imgsz, batch, opset)
    check_input(input)
    check_writable(path)
    target = TARGETS.get(model.recipe.target)
    graph = as_exported(cut(model.gm, 0).eval(), target)
    proto = _exported(graph, imgsz, batch, dynamic, opset)
    _strip(proto)
    _name_by_site(proto, graph)
    if model.stage == "int8" and target is not None and target.channels_last:
        arrange(proto)
    if input != "float":
        take_bytes(proto, input)
    says = {**metadata(model, imgsz, batch, dynamic=dynamic), "input": SAYS[input]}
    onnx.helper.set_model_props(proto, {key: str(value) for key, value in says.items()})
    onnx.checker.check_model(proto, full_check=True)
    with replacing(path) as temporary:
        onnx.save(proto, temporary)
    return path


def _check(path: Path, imgsz: int, batch: int, opset: int) -> None:
    check_imgsz(imgsz)
    if path.suffix != ".onnx":
        raise Problem(path, f"ends in {path.suffix or 'nothing'!r}", expected="a name that ends in .onnx")
    if batch < 1:
        raise Problem("--batch", f"{batch} images at a time", expected="1 or more")
    if opset not in OPSETS:
        raise Problem("--opset", f"{opset}", expected=f"one of: {', '.join(map(str, OPSETS))}")


def _exported(graph: fx.GraphModule, imgsz: int, batch: int, dynamic: bool, opset: int) -> onnx.ModelProto:
    # A batch of one would be taken for a constant, so a dynamic batch is traced with two images.
    example = torch.zeros(max(batch, 2) if dynamic else batch, 3, imgsz, imgsz)
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
                opset_version=opset,
                input_names=["images"],
                output_names=["output0"],
                dynamic_shapes=shapes,
                verbose=False,
            )
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


def _name_by_site(proto: onnx.ModelProto, graph: fx.GraphModule) -> None:
    """Give each value of codes the name of its site; torch.onnx keeps the order of the graph, and the scales say that
    it did."""
    ours = [node for node in graph.graph.nodes if node.target is quantize_per_tensor]
    theirs = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    scales = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if tensor.name in _scale_names(theirs)
    }
    names = {}
    if len(ours) != len(theirs):
        raise RuntimeError(f"the graph has {len(ours)} quantize operations, its export {len(theirs)}")
    for mine, its in zip(ours, theirs, strict=True):
        if torch.tensor(mine.args[1]).item() != float(scales[its.input[1]]):
            raise RuntimeError(f"{site_of(mine)} is not where the export has {its.name}")
        names[its.output[0]] = site_of(mine)
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _scale_names(nodes: list[onnx.NodeProto]) -> set[str]:
    return {node.input[1] for node in nodes}
