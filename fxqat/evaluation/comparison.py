"""Any mix of checkpoints, graphs and ONNX files, measured on the same images and compared with the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fxqat.checkpoint.model_io import load
from fxqat.evaluation.accuracy import Accuracy, evaluate
from fxqat.evaluation.bootstrap import Drift, paired_drift
from fxqat.evaluation.exported_file import from_file, is_exported
from fxqat.evaluation.latency import measure
from fxqat.evaluation.predictor import Predictor
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize, SizeLike
from fxqat.runtime.integer_model import predictor
from fxqat.workflow.stage_checks import expect_calibrated

_RUNS = 7


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One model's accuracy, its paired drift against the first model, its size and its median latency for one image;
    and accuracy and drift by the task's other metrics."""

    accuracy: Accuracy
    drift: Drift | None
    megabytes: float
    milliseconds: float
    others: tuple[tuple[Accuracy, Drift | None], ...] = ()

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        drift = asdict(self.drift) if self.drift else None
        return {
            **self.accuracy.summary(),
            "drift": drift,
            "megabytes": self.megabytes,
            "milliseconds": self.milliseconds,
            **({"others": [_told(*other) for other in self.others]} if self.others else {}),
        }


def _told(accuracy: Accuracy, drift: Drift | None) -> dict[str, Any]:
    return {**accuracy.summary(), "drift": asdict(drift) if drift else None}


def compare(
    models: Sequence[str | Path],
    data: str | Path,
    *,
    images_limit: int | None = None,
    imgsz: SizeLike | None = None,
    batch: int = 8,
    split: str = "val",
    threads: int = 2,
    trust: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ComparisonRow]:
    """Measure every model on the same images.

    Exported files are timed in their runtimes, taking turns in processes of their own; .pt and .fxqat in eager torch,
    which says nothing about a runtime.

    Args:
        models: paths.
        data: data set YAML.
        images_limit: so many images, evenly spread.
        imgsz: one side, or height and width; by default what a file among them takes, what one was trained or
            calibrated at, or 640.
        batch: images at a time.
        split: of the data set.
        threads: when timing.
        trust: let a .pt run code.
        progress: called with steps done and steps in all.

    Raises:
        Problem: a model or the data set cannot be used.
    """
    opened = [open_model(model, trust=trust) for model in models]
    size = usual_size(opened) if imgsz is None else ImageSize.of(imgsz)
    found: list[Accuracy] = []
    for index, one in enumerate(opened):
        step = _step(progress, index, len(opened))
        found.append(evaluate(one, data, imgsz=size, batch=batch, split=split, limit=images_limit, progress=step))
    times = _times(models, opened, size, threads)
    drifts = [_drift(found[0], one) for one in found]
    others = [tuple((o, _drift(b, o)) for b, o in zip(found[0].others, one.others, strict=True)) for one in found]
    sizes = [one.path.stat().st_size / 1e6 if one.path and one.path.is_file() else 0.0 for one in opened]
    rows = zip(found, drifts, sizes, times, others, strict=True)
    return [ComparisonRow(accuracy=a, drift=d, megabytes=size, milliseconds=t, others=o) for a, d, size, t, o in rows]


def _times(models: Sequence[str | Path], opened: Sequence[Predictor], size: ImageSize, threads: int) -> list[float]:
    """Milliseconds of one image: exported files' medians in their runtimes, the others' in eager torch."""
    files = [Path(model) for model in models if is_exported(model)]
    timed = iter(measure(files, threads=threads, imgsz=size, rounds=16) if files else [])
    pairs = zip(models, opened, strict=True)
    return [next(timed).median if is_exported(model) else _eager(one, size, threads) for model, one in pairs]


def _drift(base: Accuracy, other: Accuracy) -> Drift | None:
    return None if other is base else paired_drift(base, other)


def open_model(model: str | Path, *, trust: bool = False) -> Predictor:
    """A .pt, .fxqat, .onnx or .tflite file as something that can be evaluated: a .fxqat in the arithmetic of its
    runtime where that is known, see fxqat.runtime.integer_model.

    Raises:
        Problem: it cannot be loaded, or a .fxqat was prepared but never calibrated.
    """
    path = Path(model)
    if is_exported(path):
        return from_file(path)
    detector = load(path, trust=trust).eval()
    if detector.stage == "qat":
        expect_calibrated(detector, "val")
    return Predictor.of(detector, predictor(detector), name=path.name, path=path)


def usual_size(models: Sequence[Predictor]) -> ImageSize:
    """The image size to compare models at: the one that a file takes, or the first that one was calibrated at, or a
    float model trained at, or 640."""
    sizes = [(one.imgsz, one.usual, one.float_size) for one in models]
    return next((size for kind in zip(*sizes, strict=True) for size in kind if size is not None), DEFAULT_SIZE)


def _step(progress: Callable[[int, int], None], index: int, count: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(index * total + done, count * total)


def _eager(model: Predictor, size: ImageSize, threads: int) -> float:
    """Median milliseconds of a forward of one image in this process."""
    before, times = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for _ in range(_RUNS + 1):
            start = time.perf_counter()
            model(torch.zeros(1, 3, *size.shape))
            times.append((time.perf_counter() - start) * 1e3)
    finally:
        torch.set_num_threads(before)
    return statistics.median(times[1:])
