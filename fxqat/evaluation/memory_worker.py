"""A process that loads one .pt or .fxqat, runs it once, and prints its peak memory; started by memory.py.

Arguments: file, image size, batch. It prints one JSON line: ``{"rss": bytes, "loaded": bytes}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import os
import sys


def main(file: str, imgsz: str, batch: str) -> None:
    """Load, run, tell."""
    from fxqat.models.environment import environment

    for name, value in environment().items():
        os.environ.setdefault(name, value)
    import torch

    from fxqat.checkpoint.model_io import load
    from fxqat.errors import Problem
    from fxqat.evaluation.timing_worker import peak_rss, sides

    torch.set_num_threads(2)
    try:
        model = load(file).eval()
        loaded = peak_rss()
        with torch.no_grad():
            model(torch.zeros(int(batch), 3, *sides(imgsz)))
    except Problem as problem:
        print(json.dumps({"error": str(problem)}))
        return
    print(json.dumps({"rss": peak_rss(), "loaded": loaded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
