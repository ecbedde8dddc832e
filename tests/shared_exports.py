"""What torch.onnx makes of a graph, kept for all tests of a run, and what it needs for any.

It takes seconds for every network, and many tests export the same one: in other layouts, opsets and input types, which
all are made after it, or through the command line. Nothing else of an export is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import pytest
from torch import fx

from fxqat.graph.text import text
from fxqat.models.image_size import ImageSize

Export = Callable[[fx.GraphModule, list[str], ImageSize, int, bool], onnx.ModelProto]


def kept(export: Export, folder: Path) -> Export:
    """``export``, or what it gave for the same graph, tensors and sizes before; processes may share ``folder``."""

    def exported(
        graph: fx.GraphModule, names: list[str], size: ImageSize, batch: int, dynamic: bool
    ) -> onnx.ModelProto:
        path = folder / f"{_digest(graph, names, size, batch, dynamic)}.onnx"
        if not path.is_file():
            temporary = folder / f"{path.name}.{os.getpid()}"
            onnx.save(export(graph, names, size, batch, dynamic), temporary)
            temporary.rename(path)
        return onnx.load(path)

    return exported


def one_registry(patch: pytest.MonkeyPatch) -> None:
    """Let a process read onnxscript's functions once: torch.onnx does for each export, in a sixth of its time.

    An export changes the registry only where it is given functions of its own, which fxqat does not.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))


def _digest(graph: fx.GraphModule, *rest: object) -> str:
    made = hashlib.sha256(f"{text(graph.graph)}{graph.graph}{graph}{rest}".encode())
    for name, tensor in graph.state_dict().items():
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return made.hexdigest()
