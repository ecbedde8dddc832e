"""Everything that the page shows, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fxqat.api as api
from fxqat.data import dataset, images
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, evaluate
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.comparison import open_model
from fxqat.evaluation.drift_report import ROUNDS, DriftOptions, read, travel
from fxqat.evaluation.exported_file import is_exported, runtime_title
from fxqat.evaluation.float_export import export_float
from fxqat.evaluation.latency import Latency, measure
from fxqat.evaluation.predictor import Predictor
from fxqat.files import temporary_folder
from fxqat.graph.pipeline import Pipeline
from fxqat.models.detector import Detector
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.passes.unquantize import Unquantize
from fxqat.report.diffs import PassDiff, changed
from fxqat.report.image_differences import Differences, ImageDifferences
from fxqat.report.measurements import Measurements
from fxqat.report.model_breakdown import Breakdown, break_down
from fxqat.report.pictures import Shown
from fxqat.report.provenance import Provenance, provenance
from fxqat.report.selection import ImageSelection
from fxqat.report.values import Spread, spreads
from fxqat.report.verdict import Verdict, judge
from fxqat.runtime.exactness import inexact_here
from fxqat.runtime.verify import Difference
from fxqat.sensitivity.error_report import ErrorReport, analyze
from fxqat.targets import target_of
from fxqat.workflow.stage_checks import expect_calibrated

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
_SPREAD_OVER = 4  # images a histogram is made of


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What to report on, and how much of it.

    Attributes:
        model: a .fxqat file, prepared, calibrated or trained.
        data: data set YAML, folder, list or image; None measures nothing.
        file: exported from the model, .onnx or .tflite.
        against: the float checkpoint to compare with; the model's own weights in float without it.
        images: for the error analysis and the detections.
        pictures: shown.
        val: images that the task's metric is measured on, 0 for none; needs labels.
        imgsz: of the images; what the model was calibrated with without it.
        trust: let ``against`` run code.
        drift: the record of ``fxqat drift --json`` to show.
        stages: measure that record here, on ``val`` images, with memory and latency.
        latency: time ``onnx`` for one image, taking turns with the float network's file.
        threads: for that.
        verify: images on which the codes of ``onnx`` are compared with the reference graph's.
    """

    model: Path
    data: str | None = None
    file: Path | None = None
    against: Path | None = None
    images: int = 16
    pictures: int = 4
    val: int = 128
    imgsz: ImageSize | None = None
    trust: bool = False
    drift: Path | None = None
    stages: bool = False
    latency: bool = False
    threads: int = 2
    verify: int = 1

    def __post_init__(self) -> None:
        if self.imgsz is not None:
            object.__setattr__(self, "imgsz", ImageSize.of(self.imgsz))


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the page shows; None where it was not measured."""

    title: str
    breakdown: Breakdown
    passes: tuple[PassDiff, ...]
    provenance: Provenance
    measured: Measurements
    verdict: Verdict
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    shown: Shown | None = None
    runner: str = ""
    floats: str = ""
    data: str = ""
    imgsz: ImageSize = DEFAULT_SIZE
    skipped: str = ""
    way: Mapping[str, Any] | None = None


def collect(
    asked: ReportOptions, command: str, *, on_step: Say = lambda name: None, progress: Progress = lambda a, b: None
) -> Content:
    """Measure what ``asked`` can have measured.

    Args:
        asked: see there.
        command: that asks, for the page to repeat.
        on_step: called with the name of what is done next.
        progress: called with steps done and steps in all of it.

    Raises:
        Problem: a file or data set that cannot be used.
    """
    _check(asked)
    model = api.load(asked.model)
    breakdown = break_down(model)
    if asked.data:
        expect_calibrated(model, "report")
    imgsz = (asked.imgsz or model.imgsz).checked(model.stride)
    base = Measurements(
        integer_share=breakdown.integer_share,
        size=_size(model, asked.file),
        corrected=bool(model.recipe.calibration.get("corrections")),
        trained=bool(model.recipe.training),
    )
    common = {
        "title": asked.model.name,
        "breakdown": breakdown,
        "passes": tuple(map(changed, breakdown.passes)),
        "provenance": provenance(model, asked.model, command, asked.file),
        "imgsz": imgsz,
        "way": read(asked.drift, asked.model) if asked.drift else None,
    }
    if asked.data is None:
        return Content(**common, measured=base, verdict=judge(base))  # type: ignore[arg-type]
    look_at = _Look(asked=asked, model=model, imgsz=imgsz, on_step=on_step, progress=progress)
    return look_at.content(common, base)


def _check(asked: ReportOptions) -> None:
    """Refuse before any work what cannot be used."""
    if asked.imgsz is not None:
        asked.imgsz.checked(images.STRIDE)
    if asked.data is not None:
        dataset.find(asked.data)
    if asked.file is not None and not asked.file.is_file():
        raise Problem(asked.file, "no such file", expected="an exported file", remedy="run fxqat export first")
    if asked.drift is not None and asked.stages:
        raise Problem("--stages", "would measure what --drift holds", remedy="give one of them")
    if asked.stages and not (asked.data and asked.val):
        raise Problem("--stages", "has no images", expected="--data with labels, and --val above 0")
    if asked.latency and not (asked.data and asked.file):
        raise Problem("--latency", "has no file to time", expected="--data, and an exported file with --file")


@dataclass(frozen=True, kw_only=True)
class _Look:
    asked: ReportOptions
    model: Detector
    imgsz: ImageSize
    on_step: Say
    progress: Progress

    def content(self, common: Mapping[str, object], base: Measurements) -> Content:
        found = self._images(self.asked.images)
        before, after = self._before(), self._after()
        if after.imgsz not in (None, self.imgsz):
            raise Problem(
                f"imgsz {self.imgsz}", f"{after.name} takes {after.imgsz} only", remedy=f"give --imgsz {after.imgsz}"
            )
        errors = self._errors(found)
        accuracy, skipped, differences = self._accuracy(before, after)
        shown = self._shown(found, before, after, differences)
        codes = self._codes(found) if self._promised else None
        measured = replace(
            base,
            drift=paired_drift(*accuracy) if accuracy else None,
            pool=found.total if accuracy else 0,
            before=accuracy[0].map5095 if accuracy else None,
            after=accuracy[1].map5095 if accuracy else None,
            agreement=shown.agreement if shown else None,
            codes=codes,
            inexact=inexact_here(self.asked.file) if self.asked.file else None,
            runtime=self._runtime() or base.runtime,
            errors=errors,
            latency=self._latency() if self.asked.latency else None,
            metric=before.family.metric.name,
        )
        if self.asked.stages:
            common = {**common, "way": self._way()}
        return Content(
            **common,  # type: ignore[arg-type]
            measured=measured,
            verdict=judge(measured),
            spreads=self._spreads(found),
            shown=shown,
            runner=self._runtime() or "torch, fake-quantized",
            floats=before.name,
            data=Path(str(self.asked.data)).name,
            skipped=skipped,
        )

    def _images(self, limit: int) -> images.ImageList:
        """Of the val split where there is one: what calibration has not seen."""
        place = dataset.find(str(self.asked.data))
        try:
            return images.image_paths(place, split="val", limit=limit)
        except Problem:
            return images.image_paths(place, limit=limit)

    def _before(self) -> Predictor:
        if self.asked.against:
            return open_model(self.asked.against, trust=self.asked.trust)
        gm, _ = Pipeline((Unquantize(),)).run(self.model.gm)
        float_model = self.model.with_graph(gm).eval()
        name = "the same weights in float"
        return Predictor.of(float_model, _predict(float_model), name=name)

    def _runtime(self) -> str | None:
        """The runtime of the exported file, in words."""
        return None if self.asked.file is None else runtime_title(self.asked.file)

    def _after(self) -> Predictor:
        return open_model(self.asked.file or self.asked.model)

    def _batches(self, found: images.ImageList, limit: int | None = None) -> list[Tensor]:
        chosen = images.spread(list(found.paths), limit)
        some = images.ImageList(source=found.source, split=found.split, paths=tuple(chosen), total=found.total)
        return list(images.batches(some, self.imgsz, 1, fit=self.model.fit))

    def _errors(self, found: images.ImageList) -> ErrorReport:
        self.on_step("measuring the error at every site")
        batches = images.batches(found, self.imgsz, 1, fit=self.model.fit)
        return analyze(self.model, batches, progress=lambda done: self.progress(done, len(found)))

    def _spreads(self, found: images.ImageList) -> Mapping[str, Spread]:
        return spreads(self.model, self._batches(found, _SPREAD_OVER))

    def _shown(self, found: images.ImageList, before: Predictor, after: Predictor, validated: Differences) -> Shown:
        self.on_step("detecting before and after")
        chosen = ImageSelection(
            before=before, after=after, names=self.model.names, imgsz=self.imgsz, count=self.asked.pictures
        )
        return chosen.shown(found.paths, validated, lambda done: self.progress(done, len(found)))

    def _accuracy(
        self, before: Predictor, after: Predictor
    ) -> tuple[tuple[Accuracy, Accuracy] | None, str, Differences]:
        """The task's metric of both on the same images, or why there is none; and how far they are apart on each."""
        if not self.asked.val:
            return None, "not asked for", {}
        self.on_step(f"measuring {before.family.metric.name}")
        noted = ImageDifferences()
        both = noted.first(before), noted.second(after)
        try:
            first, second = (self._evaluate(one, index) for index, one in enumerate(both))
        except Problem as problem:
            return None, str(problem), {}
        paths = [match.image for match in first.matches]
        return (first, second), "", dict(zip(paths, noted.values, strict=True))

    def _evaluate(self, one: Predictor, index: int) -> Accuracy:
        def step(done: int, total: int) -> None:
            self.progress(index * total + done, 2 * total)

        limit, batch = self.asked.val, 1 if one.path and is_exported(one.path) else 4
        return evaluate(one, str(self.asked.data), imgsz=self.imgsz, batch=batch, limit=limit, progress=step)

    def _way(self) -> Mapping[str, Any]:
        asked = DriftOptions(
            data=str(self.asked.data),
            images=self.asked.val,
            imgsz=self.imgsz,
            source=self.asked.against,
            trust=self.asked.trust,
            memory=True,
            latency=True,
        )
        last = [""]

        def step(what: str, done: int, total: int) -> None:
            if what != last[0]:
                self.on_step(f"drift: {what}")
                last[0] = what
            self.progress(done, total)

        with temporary_folder("fxqat-report-") as folder:
            return travel(self.model, self.asked.model, asked, folder, step).summary()

    def _latency(self) -> Latency:
        self.on_step("timing one image")
        assert self.asked.file is not None
        with temporary_folder("fxqat-report-") as folder:
            plain = export_float(self.model, folder / f"float{self.asked.file.suffix}", imgsz=self.imgsz)
            files, threads = (plain, self.asked.file), self.asked.threads
            _, mine = measure(files, threads=threads, imgsz=self.imgsz, rounds=ROUNDS, progress=self.progress)
        return mine

    @property
    def _promised(self) -> bool:
        """Whether the file's codes are to be the reference graph's, whose arithmetic then is that of the target."""
        target = target_of(self.model.recipe.target)
        return self.asked.file is not None and target is not None and target.arithmetic is not None

    def _codes(self, found: images.ImageList) -> Difference | None:
        """None where nothing is quantized: no integer could differ."""
        assert self.asked.file is not None
        self.on_step(f"comparing codes with {self._runtime()}")
        batches = self._batches(found, self.asked.verify)
        verified = api.verify(self.model, self.asked.file, batches)
        return verified.total("reference_runtime") if verified.rows else None


def _predict(model: Detector) -> Callable[[Tensor], Any]:
    @torch.no_grad()
    def predict(batch: Tensor) -> Tensor:
        found: Tensor = model(batch)[0]
        return found

    return predict


def _size(model: Detector, file: Path | None) -> float | None:
    """The exported file's size as a part of 32 bits for each weight."""
    if file is None or not file.is_file():
        return None
    weights = sum(parameter.numel() for parameter in model.gm.parameters())
    return file.stat().st_size / (4 * weights)
