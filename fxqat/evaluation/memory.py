"""Peak memory of a model, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fxqat.errors import Problem
from fxqat.evaluation.exported_file import is_exported
from fxqat.evaluation.latency import measure
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike

WORKER = "fxqat.evaluation.memory_worker"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One file, in MB of 10^6 bytes: on disk, and resident at the peak of loading it and running it once (libraries
    included)."""

    name: str
    file: float
    peak: float


def memory(paths: Sequence[str | Path], *, imgsz: SizeLike = DEFAULT_SIZE, batch: int = 1) -> list[Memory]:
    """Measure exported files in their runtimes alone, .pt and .fxqat files in torch.

    Raises:
        Problem: a file is missing or cannot be run.
    """
    return [_one(Path(path), ImageSize.of(imgsz), batch) for path in paths]


def _one(path: Path, size: ImageSize, batch: int) -> Memory:
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .pt, .fxqat, .onnx or .tflite file")
    megabytes = path.stat().st_size / 1e6
    if is_exported(path):
        (found,) = measure([path], rounds=1, runs=1, warmup=1)
        return Memory(name=path.name, file=megabytes, peak=found.rss)
    command = [sys.executable, "-m", WORKER, str(path), str(size), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        last = done.stderr.strip().splitlines()[-1:]
        raise Problem(path, f"its process died with code {done.returncode}", remedy="".join(last)) from error
    if "error" in answer:
        raise Problem(path, answer["error"])
    return Memory(name=path.name, file=megabytes, peak=answer["rss"] / 1e6)
