"""A .tflite file in LiteRT, with the codes of each tensor beside its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fxqat.errors import Problem
from fxqat.runtime.reference.tensor_names import CODES, back
from fxqat.runtime.tflite import first_run
from fxqat.runtime.tflite.native_output import hidden
from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_outputs import Outputs, head_of, outputs_of

Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]


def interpreter(content: bytes, *, xnnpack: bool, threads: int = 1) -> Run:
    """LiteRT on the CPU.

    Args:
        content: of a .tflite file.
        xnnpack: whether XNNPACK computes, as it does by default; else LiteRT's reference kernels.
        threads: of XNNPACK.

    Raises:
        RuntimeError: LiteRT cannot run it, see ``first_run.check``.
    """
    first_run.check(content, xnnpack=xnnpack)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_REF
    with hidden():  # it tells that XNNPACK is there
        opened = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=threads)
        opened.allocate_tensors()
    (source,) = opened.get_input_details()
    outputs = [detail["index"] for detail in opened.get_output_details()]

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        (images,) = inputs.values()
        opened.set_tensor(source["index"], images)
        opened.invoke()
        return [opened.get_tensor(index) for index in outputs]

    return run


@dataclass(frozen=True, kw_only=True)
class TFLiteSession:
    """A .tflite file in LiteRT, see ``sessions.Session``.

    Attributes:
        run: its outputs for its input.
        kind: numpy's name of the input's type.
        outputs: the final ones, which are first.
        names: of the outputs behind them, in the file's words.
        sites: of the codes.
    """

    run: Run
    kind: str
    outputs: Outputs
    names: tuple[str, ...]
    sites: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """See ``Session``."""
        return self.outputs.shape

    def __call__(self, images: np.ndarray) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """See ``Session``."""
        pixels = as_pixels(images, self.kind)
        values, count = self.run({"images": pixels}), len(self.outputs.final)
        found = dict(_in_order(*pair) for pair in zip(self.names, values[count:], strict=True))
        # in a file of int8 the image is its own codes
        image = pixels.transpose(0, 3, 1, 2)
        return self.outputs.read(values[:count]), {site: found.get(f"{site}{CODES}", image) for site in self.sites}


def open_tflite(path: Path, sites: Sequence[str], run: Callable[[bytes], Run]) -> TFLiteSession:
    """``path`` opened by ``run``, with every value of codes as a further output.

    Raises:
        Problem: it is missing, no .tflite file, or another model's.
    """
    file = TFLiteFile.read(path)
    head = head_of(path, file)
    (source,) = file.graph.inputs
    outputs = outputs_of(file, head.family.final(head.spec))
    held = {back(file.name(index), 0)[0]: index for index, _ in file.made()}
    wanted = {site: held.get(f"{site}{CODES}") for site in sites}
    for site, index in wanted.items():
        if index is None and (site != file.name(source) or file.type(source) != "int8"):
            raise Problem(
                path,
                f"has no tensor {site}{CODES}",
                expected="a file exported from this model",
                remedy="export it again",
            )
    indices = [index for index in wanted.values() if index is not None]
    file.graph.outputs = [*file.graph.outputs, *indices]
    return TFLiteSession(
        run=run(file.content()),
        kind=file.type(source),
        outputs=outputs,
        names=tuple(file.name(index) for index in indices),
        sites=tuple(sites),
    )


def as_pixels(images: np.ndarray, kind: str) -> np.ndarray:
    """Images (B, 3, H, W) float32 in 0..1 as a file's input of type ``kind`` wants them, (B, H, W, 3)."""
    pixels = images.transpose(0, 2, 3, 1)
    if kind != "float32":
        pixels = np.round(pixels * 255) - (128 if kind == "int8" else 0)
    return np.ascontiguousarray(pixels.astype(kind))


def _in_order(name: str, codes: np.ndarray) -> tuple[str, np.ndarray]:
    """A tensor's name and its codes in the graph's order of axes."""
    known, axes = back(name, codes.ndim)
    return known, codes.transpose(axes)
