"""An exported file in a runtime, with the codes of each tensor beside its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from fxqat.errors import Problem
from fxqat.models.image_size import ImageSize
from fxqat.runtime.onnx.onnx_file import read
from fxqat.runtime.reference.tensor_names import CODES, back
from fxqat.runtime.refusals import guarded
from fxqat.runtime.runtime import Open, Run, Runtime
from fxqat.runtime.tflite import litert_session
from fxqat.runtime.tflite.tflite_file import TFLiteFile


class Session(Protocol):
    """A file in one runtime. ``shape`` are the images that it takes, (B, 3, H, W), 0 where a size is free."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, 3, H, W)."""

    def __call__(self, images: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """The final outputs, boxes in pixels, and codes by site, for images (B, 3, H, W) float32 in 0..1."""


@dataclass(frozen=True, kw_only=True)
class OnnxSession:
    """An ONNX file in one runtime, see ``Session``. ``final`` counts the outputs that are not codes, which are first.

    For a file that takes more images at a time than are given, black ones are added, and what comes of them is dropped.
    """

    run: Run
    proto: onnx.ModelProto
    sites: tuple[str, ...]
    final: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``Session``."""
        sizes = tuple(size.dim_value for size in self.proto.graph.input[0].type.tensor_type.shape.dim)
        return (sizes[0], sizes[3], *sizes[1:3]) if sizes[3] == 3 else sizes  # channels last

    def __call__(self, images: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """See ``Session``."""
        (source,) = self.proto.graph.input
        missing = max(source.type.tensor_type.shape.dim[0].dim_value - len(images), 0)
        filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        outputs = [one[: len(images)] for one in self.run({source.name: as_input(filled, source)})]
        names = [value.name for value in self.proto.graph.output]
        codes = dict(zip(names[self.final :], outputs[self.final :], strict=True))
        # in a file of bytes the image is its own codes
        return list(outputs[: self.final]), {
            site: codes.get(f"{site}{CODES}", np.round(images * 255).astype(np.uint8)) for site in self.sites
        }


def fixed_sizes(path: Path) -> tuple[int, ImageSize | None]:
    """How many images at a time a file takes, and of which size; 0 and None where it leaves that open.

    Raises:
        Problem: it is missing, damaged, or takes no images.
    """
    if path.suffix == ".tflite":
        file = TFLiteFile.read(path)
        sizes = [int(size) for size in file.shape(int(file.graph.inputs[0]))]
    else:
        sizes = [size.dim_value for size in read(path).graph.input[0].type.tensor_type.shape.dim]
    if len(sizes) != 4 or min(sizes) < 0:
        raise Problem(path, f"takes {sizes}", expected="images (N, 3, H, W) or (N, H, W, 3)")
    sides = sizes[1:3] if sizes[-1] == 3 else sizes[2:]
    return sizes[0], ImageSize.of(sides) if all(sides) else None


def open_file(path: Path, sites: Sequence[str], runtime: Runtime) -> Session:
    """``path`` in ``runtime`` with every value of codes as a further output.

    Raises:
        Problem: it is missing, no file for this runtime, another model's, or the runtime cannot run it.
    """
    if path.suffix != runtime.suffix:
        raise Problem(path, f"is no file for {runtime.title}", expected=f"a name that ends in {runtime.suffix}")

    def run(model: Any) -> Run:
        return guarded(lambda: runtime.open(model), path, runtime.title)

    return litert_session.open_tflite(path, sites, run) if path.suffix == ".tflite" else _open_onnx(path, sites, run)


def _open_onnx(path: Path, sites: Sequence[str], run: Open) -> OnnxSession:
    proto = read(path)
    (source,) = proto.graph.input[:1]
    final = len(proto.graph.output)
    is_bytes = source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    made, kind = {name for node in proto.graph.node for name in node.output}, _code_type(proto)
    for site in sites:
        name = f"{site}{CODES}"
        if name not in made and (permuted := _in_order(proto, made, name)) is not None:
            proto.graph.node.append(permuted)
            made.add(name)
        if name in made:
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        elif site != source.name or not is_bytes:
            raise Problem(
                path, f"has no tensor {name}", expected="a file exported from this model", remedy="export it again"
            )
    return OnnxSession(run=run(proto), proto=proto, sites=tuple(sites), final=final)


def _code_type(proto: onnx.ModelProto) -> int:
    """The type of all activations' codes: a target has one."""
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    quantize = next((node for node in proto.graph.node if node.op_type == "QuantizeLinear"), None)
    zero_point = quantize.input[2] if quantize and len(quantize.input) > 2 else ""
    return kinds.get(zero_point, onnx.TensorProto.UINT8)  # another type is for the runtime to refuse


def _in_order(proto: onnx.ModelProto, made: set[str], name: str) -> onnx.NodeProto | None:
    """The Transpose that gives codes which the file holds in another order of axes their own order."""
    held = next((one for one in made if one.startswith(name) and back(one, 0)[0] == name), None)
    if held is None:
        return None
    return onnx.helper.make_node("Transpose", [held], [name], perm=back(held, 0)[1], name=name)


def as_input(images: np.ndarray, source: onnx.ValueInfoProto) -> np.ndarray:
    """Images (B, 3, H, W) float32 in 0..1 as a file's input wants them: bytes, channels last, or as they are."""
    if source.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return images
    pixels = np.round(images * 255).astype(np.uint8)
    last = source.type.tensor_type.shape.dim[-1].dim_value == 3
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if last else pixels
