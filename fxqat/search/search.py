"""The fastest policy within a budget of accuracy: which ranges and corrections an INT8 network is given, and which of
its layers are better left in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fxqat.checkpoint.model_io import load
from fxqat.data import images
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, evaluate, from_onnx
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.cache import ResultCache
from fxqat.evaluation.disagreement import confident, disagreement, ratio
from fxqat.evaluation.latency import measure as measure_latency
from fxqat.files import temporary_folder
from fxqat.graph.pipeline import Pipeline
from fxqat.models.detector import Detector
from fxqat.passes import Assign, Rules, converting, fusing, preparing
from fxqat.passes.selective import asleep
from fxqat.passes.selective import run as run_with
from fxqat.policy import Policy
from fxqat.search.candidates import Candidate, candidates, pick
from fxqat.search.layer_selection import Judge
from fxqat.search.mixed_precision import Layout
from fxqat.search.op_costs import Costs, convolutions, profile
from fxqat.search.policy_writer import written
from fxqat.search.range_tuning import RangeTrial, improved
from fxqat.search.search_result import Budget, PolicyResult, SearchResult
from fxqat.sensitivity.gradient_probe import probe
from fxqat.sensitivity.output_divergence import FloatOutputs
from fxqat.sensitivity.result_log import Ledger, content, fingerprint
from fxqat.workflow.calibrate import calibrate
from fxqat.workflow.convert import export
from fxqat.workflow.prepare import prepare

_ROUNDS = 3
_TURNS = 12  # each file has, when timed
_TIGHTER = 0.999  # of the disagreement of what was over the budget


def search(
    model: str | Path,
    data: str | Path,
    *,
    base: str | Path = "w8a8",
    budget: Budget | None = None,
    work: str | Path | None = None,
    trust: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> SearchResult:
    """Find a policy for ``model``, starting from ``base``, in which as much is INT8 as may be.

    First come changes that cost no speed (see ``numbers``): each that brings the output nearer to float's by more than
    chance is taken; no label is read. Then come layouts. The output's error of any layout is predicted from one probing
    pass, its time from two profiles; that gives a front of a few layouts, none of which another one beats. Each of
    these is measured: how far its predictions are from float's (no labels are needed; it is no proxy for mAP), and its
    time in turns with the others. The fastest that disagrees no more than the budget buys is then calibrated, exported
    and validated in ONNX Runtime against the float file; one whose measured drop is over the budget gives way to one
    that disagrees less, at most three times.

    Args:
        model: a .pt.
        data: data set YAML: images of its train split to calibrate and probe, labels of ``budget.split`` to validate.
        base: the policy to start from; its target is the runtime that is timed.
        budget: the largest drop of mAP50-95 in points, and how much to look at.
        work: folder for what may be taken up again; None keeps nothing.
        trust: see ``load``.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        Problem: the model, the data or the base policy cannot be used.
    """
    budget = budget or Budget()
    with temporary_folder("fxqat-search-") as folder:
        return _Search(model, data, Policy.load(base), budget, work, trust, progress, folder).run()


@dataclass(frozen=True, kw_only=True)
class _Built:
    policy: Policy
    model: Detector
    file: Path
    accuracy: Accuracy


class _Search:
    def __init__(
        self,
        model: str | Path,
        data: str | Path,
        base: Policy,
        budget: Budget,
        work: str | Path | None,
        trust: bool,
        progress: Callable[[str, int, int], None],
        folder: Path,
    ) -> None:
        if not base.target.name.startswith("ort-cpu"):
            raise Problem(base.name, f"is for {base.target.name}", expected="a policy for ort-cpu, which is timed here")
        self.source = load(model, trust=trust)
        if self.source.stage != "float":
            raise Problem(model, f"is at stage {self.source.stage}", expected="a .pt, which has no policy yet")
        self.data, self.base, self.budget, self.work = data, base, budget, work
        self.imgsz = budget.imgsz or self.source.imgsz
        self.progress, self.folder, self.kept = progress, folder, ResultCache(work)
        self.known: dict[str, str] = {}
        self.models: dict[str, Detector] = {}
        self.weighed: tuple[RangeTrial, ...] = ()

    def run(self) -> SearchResult:
        plain = self._export(self.source, "float")
        self.float_accuracy = self._accuracy(plain, "validating float")
        start = self._built(self.base, "start")
        self.base, self.weighed = improved(start.policy, self._divergences())
        better = start if self.base is start.policy else self._built(self.base, "improved")
        judge = self._judge(better.model, better.file, plain)
        front = self._measured(judge, better, plain)
        base = self._tried(front[0], start, start.policy)
        best = self._best(judge, front, base, self._tried(front[0], better, self.base))
        self.progress("timing", 0, 1)
        files = [plain, base.file, best.file]
        times = tuple(measure_latency(files, threads=self.budget.threads, rounds=_TURNS))
        measured = f"{best.drift} points, {times[2].speed:.2f}x as fast as float"
        text = self._written(judge, best.numbers, best.candidate.left, measured)
        within = self._within(best)
        return SearchResult(
            policy=text, base=base, best=best, latency=times, front=front, within=within, numbers=self.weighed
        )

    def _best(self, judge: Judge, front: Sequence[Candidate], base: PolicyResult, first: PolicyResult) -> PolicyResult:
        """``first`` or another layout of the front; one over the budget gives way to what is within it."""
        best, allowed = first, self._allowed(first)
        for _ in range(_ROUNDS):
            chosen = pick(front, allowed)
            if chosen is best.candidate:
                break
            policy = Policy.parse(self._written(judge, self.base, chosen.left), "found")
            best = self._tried(chosen, self._built(policy, "candidate"), self.base)
            if self._within(best):
                break
            allowed = chosen.disagreement * _TIGHTER
        # less disagreement is no promise of mAP
        return next((one for one in (best, first, base) if self._within(one)), best)

    def _built(self, policy: Policy, what: str) -> _Built:
        model = self._calibrated(policy, f"calibrating {what}")
        file = self._export(model, what)
        return _Built(policy=policy, model=model, file=file, accuracy=self._accuracy(file, f"validating {what}"))

    def _divergences(self) -> Callable[[Policy, str], Tensor]:
        asked = self.budget
        apart = FloatOutputs(self.source, self.data, count=asked.probe_images, imgsz=self.imgsz, split=asked.split)
        return lambda policy, what: apart.of(self._calibrated(policy, f"calibrating {what}"))

    def _within(self, tried: PolicyResult) -> bool:
        return -tried.drift.points <= self.budget.max_drop

    def _allowed(self, base: PolicyResult) -> float:
        """The disagreement that the budget buys: points lost go with it, as measured on the base policy."""
        lost, found = -base.drift.points, base.candidate.disagreement
        return found * self.budget.max_drop / lost if lost > self.budget.max_drop else found

    def _measured(self, judge: Judge, better: _Built, plain: Path) -> tuple[Candidate, ...]:
        """The front with each layout's disagreement and time; the files timed have hasty ranges, which time ignores."""
        front = candidates(judge, self.budget.candidates)
        lefts = [one.left for one in front]
        what = {
            "files": [self.known[path.stem] for path in (plain, better.file)],
            "left": lefts,
            **asdict(self.budget),
            "version": 1,
        }
        ledger = Ledger(self.work, "front", what)
        if "measured" not in ledger:
            ledger.add("measured", self._differences(judge, better, plain, lefts))
        rows = zip(front, ledger["measured"], strict=True)
        return tuple(one.measured(*measured) for one, measured in rows)

    def _differences(
        self, judge: Judge, better: _Built, plain: Path, lefts: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, float]]:
        """Of each layout: its disagreement with float, and milliseconds."""
        differ = self._disagreements(better.model, [frozenset(judge.layout.awake(left)) for left in lefts])
        files = [better.file, *(self._hasty(judge, left, index) for index, left in enumerate(lefts) if left)]
        self.progress("timing candidates", 0, 1)
        first, *times = measure_latency([plain, *files], threads=self.budget.threads, rounds=_TURNS)
        # by the ratio to float within rounds: a machine's speed drifts by more than layouts differ
        return [(differing, first.median / time.speed) for differing, time in zip(differ, times, strict=True)]

    def _hasty(self, judge: Judge, left: tuple[str, ...], index: int) -> Path:
        policy = Policy.parse(self._written(judge, self.base, left), "candidate")
        model, _ = prepare(self.source, policy)
        hasty = calibrate(model, self.data, images_limit=1, imgsz=self.imgsz)
        return self._export(hasty, f"candidate {index}")

    def _disagreements(self, model: Detector, layouts: Sequence[frozenset[str]]) -> list[float]:
        asked = self.budget
        found = images.image_paths(self.data, split=asked.split, limit=asked.probe_images)
        parts: list[list[tuple[float, float]]] = [[] for _ in layouts]
        main, *_ = model.final
        with asleep(model.gm):
            for done, image in enumerate(images.batches(found, self.imgsz, 1, fit=model.fit)):
                first = confident(main, _main(run_with(model.gm, image, ())))
                for part, on in zip(parts, layouts, strict=True):
                    part.append(disagreement(first, _main(run_with(model.gm, image, on))))
                self.progress("comparing candidates", done + 1, len(found))
        return [ratio(part) for part in parts]

    def _judge(self, model: Detector, file: Path, plain: Path) -> Judge:
        lowering = converting(Rules.load(), self.base.target)
        plainly = Policy.load("float", target=self.base.target.name)
        int8, _ = lowering.run(model.gm)
        lowered, _ = lowering.run(preparing(plainly, Rules.load()).run(self.source.gm)[0])
        self.progress("profiling", 0, 2)
        costs = self._profiled(file, convolutions(int8))
        self.progress("profiling", 1, 2)
        floats = self._profiled(plain, convolutions(lowered))
        passes = (*fusing(Rules.load()).passes, Assign(policy=self.base))
        layout = Layout(Pipeline(passes).run(self.source.gm)[0], model.gm, self.base.target, self.imgsz)
        return Judge(layout, costs, floats, *self._effects(model))

    def _profiled(self, file: Path, layers: list[str]) -> Costs:
        ledger = Ledger(
            self.work, "costs", {"file": self.known[file.stem], "threads": self.budget.threads, "version": 1}
        )
        if "costs" not in ledger:
            ledger.add("costs", asdict(profile(file, layers, threads=self.budget.threads)))
        return Costs(**ledger["costs"])

    def _effects(self, model: Detector) -> tuple[np.ndarray, list[str]]:
        asked = self.budget
        found = images.image_paths(self.data, limit=asked.probe_images)
        what = {
            "images": content(found.paths),
            "model": fingerprint(model.gm),
            "imgsz": self.imgsz.plain,
            "version": 1,
        }
        ledger = Ledger(self.work, "effects", {**what, "probes": asked.probes})
        if "effects" not in ledger:
            done = probe(
                model,
                images.batches(found, self.imgsz, 1, fit=model.fit),
                probes=asked.probes,
                accumulate=False,
                progress=lambda count: self.progress("probing", count, len(found)),
            )
            ledger.add("names", list(done.names))
            ledger.add("effects", (done.samples.T @ done.samples / (2 * len(done.samples))).tolist())
        return np.array(ledger["effects"]), list(ledger["names"])

    def _calibrated(self, policy: Policy, what: str) -> Detector:
        asked = self.budget

        def make() -> Detector:
            model, _ = prepare(self.source, policy)
            step = lambda done, total: self.progress(what, done, total)  # noqa: E731  (a name for the line below)
            return calibrate(model, self.data, images_limit=asked.images_limit, imgsz=self.imgsz, progress=step)

        shown = content(images.image_paths(self.data, limit=asked.images_limit).paths)
        key = {"model": fingerprint(self.source.gm), "policy": policy.text, "images": shown, "imgsz": self.imgsz.plain}
        if policy.text not in self.models:
            self.models[policy.text] = self.kept.detector(key, make)
        return self.models[policy.text]

    def _tried(self, candidate: Candidate, built: _Built, numbers: Policy) -> PolicyResult:
        drift = paired_drift(self.float_accuracy, built.accuracy)
        return PolicyResult(candidate=candidate, numbers=numbers, file=built.file, accuracy=built.accuracy, drift=drift)

    def _accuracy(self, path: Path, what: str) -> Accuracy:
        asked = self.budget

        def make() -> Accuracy:
            model, step = from_onnx(path, threads=asked.threads), lambda done, total: self.progress(what, done, total)
            return evaluate(model, self.data, imgsz=self.imgsz, split=asked.split, progress=step)

        shown = content(images.image_paths(self.data, split=asked.split).paths)
        return self.kept.accuracy({"file": self.known[path.stem], "images": shown, "imgsz": self.imgsz.plain}, make)

    def _export(self, model: Detector, name: str) -> Path:
        self.progress(f"exporting {name}", 0, 1)
        self.known[name] = fingerprint(model.gm)  # a file's own bytes hold the date
        return export(model, self.folder / f"{name.replace(' ', '_')}.onnx", imgsz=self.imgsz)

    def _written(self, judge: Judge, base: Policy, left: tuple[str, ...], measured: str = "") -> str:
        name, share = Path(self.source.source.name).stem, judge.harm(left) / (judge.harm(()) or 1.0)
        taken = [str(one) for one in self.weighed if one.helps] if base is self.base else []
        floats = f"{len(left)} layers in float leave {100 * share:.0f} % of its output error" if left else "all in INT8"
        doc = f"Found by fxqat search for {name}, from {Path(base.name).stem}: {'; '.join([*taken, floats])}"
        if measured:
            doc += f". On {Path(self.data).name}: {measured}"
        follow = judge.layout.follow(left)
        kept = {site for site, node in judge.layout.nodes.items() if site not in follow and node.quantized}
        return written(base, doc, follow, kept, lambda part: judge.why(left, part), judge.layout.sites)


def _main(output: Any) -> Any:
    """The first final output."""
    return output[0][0] if isinstance(output[0], tuple) else output[0]
