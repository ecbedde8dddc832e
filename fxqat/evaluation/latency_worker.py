"""A process that loads one ONNX model into ONNX Runtime and runs it on request; see timing_worker.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from fxqat.evaluation.timing_worker import IMGSZ, Run, check_sides, pixels, serve

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def load(model: str, threads: int, size: Sequence[int]) -> tuple[Run, Sequence[int]]:
    """A CPU session with default options apart from the number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal ones alone: errors arrive as exceptions
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    inputs = feed(session, size)
    (images,) = inputs.values()
    return lambda: session.run(None, inputs), images.shape


def feed(session: Any, size: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """Random pixels for the model's input; a free batch is 1, free sizes are ``size`` (height, width) or 640."""
    (source,) = session.get_inputs()
    free = [1, 3, *(size or (IMGSZ, IMGSZ))]
    shape = [length if isinstance(length, int) else free[axis] for axis, length in enumerate(source.shape)]
    check_sides(shape, size, channels_last=source.type == "tensor(uint8)" and shape[-1] == 3)
    dtype = DTYPES[source.type]
    return {source.name: pixels(shape, np.uint8) if dtype is np.uint8 else pixels(shape).astype(dtype)}


if __name__ == "__main__":
    serve(load)
