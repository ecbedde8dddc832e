"""A process that loads one model (.onnx or .xml) into OpenVINO and runs it on request; see
fxqat/evaluation/timing_worker.py.

Device options are OpenVINO's defaults apart from the number of threads and the hint for latency, so float parts run in
bfloat16 where the processor has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino

from fxqat.evaluation.timing_worker import IMGSZ, Run, pixels, serve


def load(model: str, threads: int, size: Sequence[int]) -> tuple[Run, Sequence[int]]:
    """A request of the compiled model; free sizes are ``size`` (height, width) or 640."""
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    source, free = compiled.inputs[0], (1, 3, *(size or (IMGSZ, IMGSZ)))
    shape = [one.get_length() if one.is_static else free[axis] for axis, one in enumerate(source.partial_shape)]
    images = pixels(shape, np.uint8 if source.element_type == openvino.Type.u8 else np.float32)
    request = compiled.create_infer_request()
    return lambda: request.infer([images]), shape


if __name__ == "__main__":
    serve(load)
