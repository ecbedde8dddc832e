"""A process that loads one model into OpenVINO and runs it on request: fxqat/evaluation/latency_worker.py's twin.

Arguments: model (.onnx or .xml), threads, image size (``384x640``: height and width; 0: the model's
own, or 640). The protocol is the same; device options are OpenVINO's defaults
apart from the number of threads and the hint for latency, so float parts run in bfloat16 where the processor has it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino

IMGSZ = 640


def sides(text: str) -> list[int]:
    """Height and width in ``text``: ``640``, ``384x640``; none where it is ``0``."""
    found = [int(word) for word in text.split("x")]
    return [found[0], found[-1]] if any(found) else []


def load(model: str, threads: int, size: Sequence[int]) -> tuple[Any, np.ndarray]:
    """A compiled model, and random pixels for it."""
    core = openvino.Core()
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
    source = compiled.inputs[0]
    free = (1, 3, *(size or (IMGSZ, IMGSZ)))
    shape = [size.get_length() if size.is_static else free[axis] for axis, size in enumerate(source.partial_shape)]
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    is_bytes = source.element_type == openvino.Type.u8
    return compiled, (pixels * 255).astype(np.uint8) if is_bytes else pixels


def peak_rss() -> int:
    """Peak resident memory in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def timed(request: Any, pixels: np.ndarray) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    request.infer([pixels])
    return time.perf_counter() - begin


def say(message: dict[str, object]) -> None:
    """One JSON line to the parent."""
    print(json.dumps(message), flush=True)


def main(model: str, threads: str, imgsz: str) -> None:
    """Load, announce, then serve until stdin closes."""
    try:
        compiled, pixels = load(model, int(threads), sides(imgsz))
        request = compiled.create_infer_request()
        request.infer([pixels])
    except Exception as error:  # the parent turns whatever it is into one line for the user
        say({"error": f"{error}".strip().splitlines()[0]})
        return
    say({"shape": list(pixels.shape)})
    for line in sys.stdin:
        seconds = [timed(request, pixels) for _ in range(json.loads(line)["runs"])]
        say({"seconds": seconds, "rss": peak_rss()})


if __name__ == "__main__":
    main(*sys.argv[1:])
