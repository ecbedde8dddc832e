"""What every process that times one model is made of: the protocol that it speaks with latency.py, and its memory.

Arguments of such a process: model, threads, image size (``384x640``: height and width; 0: the model's own, or 640). It
answers each line ``{"runs": k}`` on stdin with one on stdout: ``{"seconds": [...], "rss": bytes}``, and announces
itself with ``{"shape": [...]}`` or ``{"error": text}``. Nothing here imports torch or a runtime, so that the peak
memory is that of the one runtime which the process opens.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

IMGSZ = 640
Run = Callable[[], object]
Load = Callable[[str, int, Sequence[int]], tuple[Run, Sequence[int]]]


def serve(load: Load) -> None:
    """Load the model that the command line names, announce it, then time it until stdin closes.

    Args:
        load: called with the model, the number of threads and the sides (see ``sides``); gives what runs the model
            once, and the shape of its input.
    """
    model, threads, imgsz = sys.argv[1:]
    try:
        run, shape = load(model, int(threads), sides(imgsz))
        run()
    except Exception as error:  # the parent turns whatever it is into one line for the user
        _say({"error": str(error).strip().partition("\n")[0]})
        return
    _say({"shape": list(shape)})
    for line in sys.stdin:
        seconds = [_timed(run) for _ in range(json.loads(line)["runs"])]
        _say({"seconds": seconds, "rss": peak_rss()})


def sides(text: str) -> list[int]:
    """Height and width in ``text``: ``640``, ``384x640``; none where it is ``0``."""
    found = [int(word) for word in text.split("x")]
    return [found[0], found[-1]] if any(found) else []


def pixels(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Random pixels: 0..1 in float32, over all values of an integer type of 8 bits."""
    found = np.random.default_rng(0).random(shape, dtype=np.float32)
    return found if dtype is np.float32 else (np.round(found * 255) + np.iinfo(dtype).min).astype(dtype)


def check_sides(shape: Sequence[int], size: Sequence[int], *, channels_last: bool) -> None:
    """Refuse a ``shape`` of the input with other sides than ``size``, where that is given.

    Raises:
        ValueError: they differ.
    """
    found = list(shape[1:3] if channels_last else shape[2:])
    if size and found != list(size):
        raise ValueError(f"takes images of {found}, not {list(size)}")


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


def _timed(run: Run) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _say(message: dict[str, object]) -> None:
    """One JSON line to the parent."""
    print(json.dumps(message), flush=True)
