"""A process that loads one ONNX model and runs it on request; started by latency.py as a script of its own.

It imports neither torch nor fxqat, so that its peak memory is ONNX Runtime's. Arguments: model, threads, image size
(``384x640``: height and width; 0: the model's own, or 640). It answers each line ``{"runs": k}`` on stdin with one on
stdout: ``{"seconds": [...], "rss": bytes}``, and announces itself with ``{"shape": [...]}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
IMGSZ = 640


def load(model: str, threads: int) -> Any:
    """A CPU session with default options apart from the number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def sides(text: str) -> list[int]:
    """Height and width in ``text``: ``640``, ``384x640``; none where it is ``0``."""
    found = [int(word) for word in text.split("x")]
    return [found[0], found[-1]] if any(found) else []


def feed(session: Any, size: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """Random pixels for the model's input; a free batch is 1, free sizes are ``size`` (height, width) or 640."""
    (source,) = session.get_inputs()
    free = [1, 3, *(size or (IMGSZ, IMGSZ))]
    shape = [size if isinstance(size, int) else free[axis] for axis, size in enumerate(source.shape)]
    sizes = shape[1:3] if source.type == "tensor(uint8)" and shape[-1] == 3 else shape[2:]
    if size and sizes != list(size):
        raise ValueError(f"takes images of {sizes}, not {list(size)}")
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    dtype = DTYPES[source.type]
    return {source.name: (pixels * 255 if dtype is np.uint8 else pixels).astype(dtype)}


def peak_rss() -> int:
    """Peak resident memory in bytes.

    Linux's ru_maxrss starts at the parent's peak, VmHWM at this program's start.
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def timed(session: Any, inputs: dict[str, np.ndarray]) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    session.run(None, inputs)
    return time.perf_counter() - begin


def say(message: dict[str, object]) -> None:
    """One JSON line to the parent."""
    print(json.dumps(message), flush=True)


def main(model: str, threads: str, imgsz: str) -> None:
    """Load, announce, then serve until stdin closes."""
    try:
        session = load(model, int(threads))
        inputs = feed(session, sides(imgsz))
        session.run(None, inputs)
    except Exception as error:  # the parent turns whatever it is into one line for the user
        say({"error": f"{error}"})
        return
    say({"shape": list(next(iter(inputs.values())).shape)})
    for line in sys.stdin:
        seconds = [timed(session, inputs) for _ in range(json.loads(line)["runs"])]
        say({"seconds": seconds, "rss": peak_rss()})


if __name__ == "__main__":
    main(*sys.argv[1:])
