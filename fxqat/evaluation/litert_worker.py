"""A process that loads one .tflite model into LiteRT and runs it on request: latency_worker.py's twin.

It imports neither torch nor fxqat, so that its peak memory is LiteRT's. Arguments and protocol are the same; LiteRT's
options are its defaults, XNNPACK among them, apart from the number of threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def load(model: str, threads: int) -> Any:
    """An interpreter that is ready to run."""
    interpreter = Interpreter(model_path=model, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def sides(text: str) -> list[int]:
    """Height and width in ``text``: ``640``, ``384x640``; none where it is ``0``."""
    found = [int(word) for word in text.split("x")]
    return [found[0], found[-1]] if any(found) else []


def feed(interpreter: Any, size: Sequence[int] = ()) -> np.ndarray:
    """Random pixels for the model's input."""
    (source,) = interpreter.get_input_details()
    shape, dtype = [int(size) for size in source["shape"]], source["dtype"]
    sizes = shape[1:3] if shape[-1] == 3 else shape[2:]
    if size and sizes != list(size):
        raise ValueError(f"takes images of {sizes}, not {list(size)}")
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    if dtype is np.float32:
        return pixels
    return (np.round(pixels * 255) + np.iinfo(dtype).min).astype(dtype)


def peak_rss() -> int:
    """Peak resident memory in bytes; see latency_worker.py."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def timed(interpreter: Any, pixels: np.ndarray) -> float:
    """Seconds of one run, input and outputs copied as a program would."""
    begin = time.perf_counter()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    for output in interpreter.get_output_details():
        interpreter.get_tensor(output["index"])
    return time.perf_counter() - begin


def say(message: dict[str, object]) -> None:
    """One JSON line to the parent."""
    print(json.dumps(message), flush=True)


def main(model: str, threads: str, imgsz: str) -> None:
    """Load, announce, then serve until stdin closes."""
    try:
        interpreter = load(model, int(threads))
        pixels = feed(interpreter, sides(imgsz))
        timed(interpreter, pixels)
    except Exception as error:  # the parent turns whatever it is into one line for the user
        say({"error": f"{error}".strip().splitlines()[0]})
        return
    say({"shape": list(pixels.shape)})
    for line in sys.stdin:
        seconds = [timed(interpreter, pixels) for _ in range(json.loads(line)["runs"])]
        say({"seconds": seconds, "rss": peak_rss()})


if __name__ == "__main__":
    main(*sys.argv[1:])
