"""The whole way of a model to a file, measured: every stage, the classes, memory and latency; kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.evaluation.drift import Stage, by_class, drift, runtime_file, stages
from fxqat.evaluation.float_export import export_float
from fxqat.evaluation.latency import Latency
from fxqat.evaluation.latency import measure as measure_latency
from fxqat.evaluation.memory import Memory, memory
from fxqat.files import sha256
from fxqat.models.detector import Detector
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.runtime.exporters import suffix_of
from fxqat.workflow.convert import export

Progress = Callable[[str, int, int], None]
ROUNDS = 8  # turns that each file has, when timed
_GRID = ((1, 1), (1, 2), (4, 1), (4, 2))  # batch, threads


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """How to measure.

    Attributes:
        data: data set YAML with labels.
        split: of it.
        images: so many, evenly spread; None for all.
        imgsz: of the images.
        batch: images at a time in torch.
        threshold: of confidence, for recall and score shift.
        source: the float checkpoint the model was made of, as first stage.
        trust: let ``source`` run code.
        memory: measure each file's peak memory too.
        latency: and the exported files' latency.
    """

    data: str | Path
    split: str = "val"
    images: int | None = None
    imgsz: ImageSize = DEFAULT_SIZE
    batch: int = 8
    threshold: float = 0.25
    source: str | Path | None = None
    trust: bool = False
    memory: bool = False
    latency: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "imgsz", ImageSize.of(self.imgsz))


@dataclass(frozen=True, kw_only=True)
class Journey:
    """What was measured.

    Attributes:
        model: the .fxqat file's name.
        sha256: of its bytes.
        data: the data set's name.
        threshold: see DriftOptions.
        stages: from float to the target's runtime.
        classes: name, boxes, average precision of the first stage, change in points to the last; worst first.
        memory: of each file, where it was asked for.
        latency: threads, and what was measured with them.
    """

    model: str
    sha256: str
    data: str
    threshold: float
    stages: tuple[Stage, ...]
    classes: tuple[tuple[str, int, float, float], ...]
    memory: tuple[Memory, ...] = ()
    latency: tuple[tuple[int, Latency], ...] = ()

    def summary(self) -> dict[str, Any]:
        """Ready for JSON; no folder is named."""
        found: dict[str, Any] = {key: getattr(self, key) for key in ("model", "sha256", "data", "threshold")}
        found["stages"] = [stage.summary() for stage in self.stages]
        found["by_class"] = [list(row) for row in self.classes]
        if self.memory:
            found["memory"] = [vars(row) for row in self.memory]
        if self.latency:
            rows = [{**one.summary(), "path": one.path.name, "threads": threads} for threads, one in self.latency]
            found["latency"] = rows
        return found


def travel(
    model: Detector,
    path: str | Path,
    asked: DriftOptions,
    folder: Path,
    progress: Progress = lambda what, done, total: None,
) -> Journey:
    """Measure a calibrated or trained detector on its way to its target's file.

    Args:
        model: stage ``qat``.
        path: the .fxqat file it was loaded from.
        asked: see there.
        folder: for the files that are exported; yours to remove.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        Problem: never calibrated, or a file or data set that cannot be used.
    """
    path = Path(path)
    progress("exporting", 0, 1)
    found = stages(model, folder, imgsz=asked.imgsz, source=asked.source, trust=asked.trust)
    rows = drift(
        found,
        asked.data,
        threshold=asked.threshold,
        imgsz=asked.imgsz,
        batch=asked.batch,
        split=asked.split,
        images_limit=asked.images,
        progress=progress,
    )
    return Journey(
        model=path.name,
        sha256=sha256(path),
        data=Path(asked.data).name,
        threshold=asked.threshold,
        stages=tuple(rows),
        classes=tuple(by_class(rows[0].accuracy, rows[-1].accuracy)),
        memory=tuple(_memory(model, path, asked, folder, progress)) if asked.memory else (),
        latency=tuple(_latency(model, asked.imgsz, folder, progress)) if asked.latency else (),
    )


def _memory(model: Detector, path: Path, asked: DriftOptions, folder: Path, progress: Progress) -> list[Memory]:
    progress("measuring memory", 0, 1)
    plain = export_float(model, folder / f"float{suffix_of(model)}", imgsz=asked.imgsz)
    sources = [Path(asked.source)] if asked.source else []
    return memory([*sources, path, plain, runtime_file(model, folder)], imgsz=asked.imgsz)


def _latency(model: Detector, imgsz: ImageSize, folder: Path, progress: Progress) -> list[tuple[int, Latency]]:
    """Float and INT8 in turns, for each batch and number of threads."""
    found, files = list[tuple[int, Latency]](), dict[int, Sequence[Path]]()
    suffix = suffix_of(model)
    for batch, threads in _GRID:
        if batch not in files:
            progress(f"exporting batch {batch}", 0, 1)
            files[batch] = (
                export_float(model, folder / f"float_batch{batch}{suffix}", imgsz=imgsz, batch=batch),
                export(model, folder / f"int8_batch{batch}{suffix}", imgsz=imgsz, batch=batch),
            )
        what = f"timing batch {batch}, {threads} threads"
        times = measure_latency(
            files[batch],
            threads=threads,
            rounds=ROUNDS,
            progress=lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
        )
        found += [(threads, one) for one in times]
    return found


def read(path: str | Path, model: str | Path) -> dict[str, Any]:
    """What ``fxqat drift --json`` wrote, as ``Journey.summary`` gives it.

    Raises:
        Problem: it is no such file, or of another model than ``model``.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(path, "no such file", expected="what fxqat drift --json writes")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        first, _ = found["stages"][0]["map5095"], found["stages"][-1]["shift"]["lost"]
        known = (found["sha256"], found["by_class"], found["threshold"], float(first))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Problem(path, "is no record of fxqat drift", expected="what fxqat drift --json writes") from error
    if known[0] != sha256(model):
        remedy = "run fxqat drift on it again"
        raise Problem(path, f"was measured on another {found['model']}", expected=Path(model).name, remedy=remedy)
    return found
