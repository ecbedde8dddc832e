"""Sensitivity: the loss that each site causes if it alone is quantized, or alone is not, by divergence or by mAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from fxqat.data import images
from fxqat.errors import Problem
from fxqat.evaluation.disagreement import Confident, confident, disagreement, ratio
from fxqat.graph.site import nearest
from fxqat.models.detector import Detector, cut
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.models.links import divergence
from fxqat.passes.selective import Selective, asleep, run
from fxqat.sensitivity.gradient_probe import probe
from fxqat.sensitivity.policy_groups import GROUPS, Unit, downstream, units
from fxqat.sensitivity.result_log import Ledger, content, fingerprint
from fxqat.workflow.stage_checks import expect_calibrated, expect_quantized

WAYS = ("probe", "output", "mAP")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One unit.

    Attributes:
        site: a policy's site, or a block's prefix.
        sites: the policy's sites in it.
        alone: harm of quantizing it and nothing else; None where it was not measured.
        without: harm that goes away when it is left in float and all else is quantized; None likewise.
    """

    site: str
    sites: tuple[str, ...]
    alone: float | None = None
    without: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Every unit in the order of the computation.

    Attributes:
        by: ``probe`` and ``output``: harm is divergence, nats; ``mAP``: points of mAP50-95 lost.
        rows: see Score.
        total: harm of everything quantized; None where it was not measured.
        images: how many were shown.
        effects: with ``probe``, the matrix E with ``D(S) = sum of E[i, j] over i, j in S`` for any set S of units.
        disagreements: with ``mAP``, by site, how far the same network's predictions are from float's on the same images
            (see ``fidelity``), 0..1: what a few hundred images can tell more surely than points.
    """

    model: str
    policy: str
    by: str
    rows: tuple[Score, ...]
    total: float | None
    images: int
    effects: np.ndarray | None = None
    disagreements: Mapping[str, float] = field(default_factory=dict)

    def sorted(self, by: str = "") -> list[Score]:
        """What was measured, most harmful first: by ``alone``, or by ``without`` where only that is there."""
        column = by or ("alone" if any(row.alone is not None for row in self.rows) else "without")
        found = [row for row in self.rows if getattr(row, column) is not None]
        return sorted(found, key=lambda row: -getattr(row, column))

    def predict(self, sites: Sequence[str]) -> float:
        """The divergence with the units called ``sites`` quantized, nats; with ``probe`` only."""
        assert self.effects is not None
        chosen = [index for index, row in enumerate(self.rows) if row.site in set(sites)]
        return float(self.effects[np.ix_(chosen, chosen)].sum())

    def critical(self, share: float = 0.5) -> list[str]:
        """The fewest policy sites that cause ``share`` of the summed harm, most harmful first."""
        rows = self.sorted()
        harm = np.maximum([row.without if row.alone is None else row.alone for row in rows], 0.0)  # type: ignore[arg-type]
        count = int(np.searchsorted(np.cumsum(harm), share * harm.sum())) + 1 if harm.sum() > 0 else 0
        return [site for row in rows[:count] for site in row.sites]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        plain = {key: getattr(self, key) for key in ("model", "policy", "by", "total", "images")}
        return {**plain, "units": [asdict(row) for row in self.rows], "disagreements": dict(self.disagreements)}


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """How to measure: see ``measure``."""

    by: str = "probe"
    group: str = "site"
    leave_one_out: bool = False
    images_limit: int | None = 32
    imgsz: ImageSize = DEFAULT_SIZE
    probes: int = 4
    seed: int = 0
    split: str = "val"
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "imgsz", ImageSize.of(self.imgsz))
        for name, value, legal in (("--by", self.by, WAYS), ("--group", self.group, GROUPS)):
            if value not in legal:
                raise Problem(name, f"{value!r}", expected=f"one of: {', '.join(legal)}", remedy=nearest(value, legal))
        if self.probes < 1:
            raise Problem("--probes", str(self.probes), expected="1 or more")


def measure(
    model: Detector,
    data: str | Path,
    asked: SensitivityOptions | None = None,
    *,
    work: str | Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Sensitivity:
    """Score every unit of a calibrated detector.

    ``probe`` takes a forward and ``probes`` backward passes an image for all units together, and gives both columns.
    ``output`` switches unit by unit and measures the divergence; only what depends on the unit is computed again.
    ``mAP`` validates a network for each unit.

    Args:
        model: stage ``qat``, calibrated.
        data: data set YAML (train split; for ``mAP`` the labelled ``split``), folder or list of images.
        asked: by what, on what.
        work: folder in which finished rows are kept, named by the content of model, policy, images and options; a
            second run takes them from there. None keeps nothing.
        progress: called with steps done and in all.

    Raises:
        Problem: never calibrated, no images, unknown options.
    """
    asked = asked or SensitivityOptions()
    expect_calibrated(model, "sensitivity")
    expect_quantized(model, "sensitivity")
    asked.imgsz.checked(model.stride)
    every = units(model.gm, asked.group)
    chosen = _chosen(every, asked)
    split = asked.split if asked.by == "mAP" else None
    found = images.image_paths(data, split=split, limit=asked.images_limit)
    ledger = Ledger(work, f"sensitivity-{asked.by}", _measured_on(model, found, asked))
    scores, total, effects = _SCORES[asked.by](_Job(model, data, found, chosen, every, asked, ledger, progress))
    return Sensitivity(
        model=model.source.name,
        policy=model.recipe.policy_name,
        by=asked.by,
        rows=tuple(scores),
        total=total,
        images=len(found),
        effects=effects,
        disagreements={unit.site: ledger[unit.site][1] for unit in chosen} if asked.by == "mAP" else {},
    )


def _measured_on(model: Detector, found: images.ImageList, asked: SensitivityOptions) -> dict[str, Any]:
    """What the rows of a measurement depend on: rows of all sites may be kept together."""
    plain = {**asdict(asked), "imgsz": asked.imgsz.plain, "only": []}
    return {**plain, "images": content(found.paths), "model": fingerprint(model.gm), "version": 2}


def _chosen(every: Sequence[Unit], asked: SensitivityOptions) -> tuple[Unit, ...]:
    known = [unit.site for unit in every]
    for site in asked.only:
        if site not in known:
            raise Problem(site, "is no quantized site", remedy=nearest(site, known) or "see fxqat sites")
    return tuple(unit for unit in every if not asked.only or unit.site in asked.only)


@dataclass(frozen=True)
class _Job:
    model: Detector
    data: str | Path
    found: images.ImageList
    units: tuple[Unit, ...]
    every: tuple[Unit, ...]
    asked: SensitivityOptions
    ledger: Ledger
    progress: Progress

    def batches(self) -> Iterator[Tensor]:
        return images.batches(self.found, self.asked.imgsz, 1, fit=self.model.fit)

    def on(self, unit: Unit | None) -> frozenset[str]:
        """Members that are awake: the unit's own, or with leave_one_out all but its; None leaves out nothing."""
        if not self.asked.leave_one_out:
            return frozenset(unit.nodes if unit else ())
        every = {name for one in self.every for name in one.nodes}
        return frozenset(every - set(unit.nodes if unit else ()))


_Scored = tuple[list[Score], float | None, np.ndarray | None]


def _by_probe(job: _Job) -> _Scored:
    """Both columns, from one matrix of effects."""
    if "effects" not in job.ledger:
        step = job.progress
        found = probe(
            job.model,
            job.batches(),
            probes=job.asked.probes,
            seed=job.asked.seed,
            accumulate=False,
            progress=lambda done: step(done, len(job.found)),
        )
        place = {name: index for index, name in enumerate(found.names)}
        felt = np.stack([found.samples[:, [place[name] for name in unit.nodes]].sum(1) for unit in job.every], axis=1)
        job.ledger.add("effects", (felt.T @ felt / (2 * len(felt))).tolist())
    effects = np.array(job.ledger["effects"])
    sums = effects.sum(1)
    where = {unit.site: index for index, unit in enumerate(job.every)}
    scores = []
    for unit in job.units:
        index = where[unit.site]
        alone = float(effects[index, index])
        scores.append(Score(site=unit.site, sites=unit.sites, alone=alone, without=float(2 * sums[index]) - alone))
    return scores, float(effects.sum()), effects


def _by_output(job: _Job) -> _Scored:
    """One column, image by image: a base network, then for each unit what depends on it."""
    view = cut(job.model.gm, 1)
    wanted = [unit.site for unit in job.units]
    with asleep(view), torch.no_grad():
        depends = {unit.site: downstream(view, unit.nodes) for unit in job.units}
        for index, image in enumerate(job.batches()):
            row = dict(job.ledger[str(index)]) if str(index) in job.ledger else {}
            missing = [unit for unit in job.units if unit.site not in row]
            if missing:
                job.ledger.add(str(index), {**row, **_image(job, view, image, missing, depends)})
            job.progress(index + 1, len(job.found))
    rows = [job.ledger[str(index)] for index in range(len(job.found)) if str(index) in job.ledger]
    base = float(np.mean([row[""] for row in rows]))
    harm = {site: float(np.mean([row[site] for row in rows])) for site in wanted}
    return _scores(job, harm, base), base if job.asked.leave_one_out else None, None


def _image(
    job: _Job, view: fx.GraphModule, image: Tensor, missing: Sequence[Unit], depends: dict[str, frozenset[str]]
) -> dict[str, float]:
    plain = run(view, image, ())
    walk = Selective(view, job.on(None))
    walk.garbage_collect_values = False
    base = walk.run(image)
    outputs = job.model.compared
    found = {"": float(divergence(outputs, plain, base))}
    for unit in missing:
        kept = {node: value for node, value in walk.env.items() if node.name not in depends[unit.site]}
        raw = Selective(view, job.on(unit)).run(image, initial_env=kept)
        found[unit.site] = float(divergence(outputs, plain, raw))
    return found


def _scores(job: _Job, harm: dict[str, float], base: float) -> list[Score]:
    """The scores of all units; ``harm`` is the error with a unit switched, ``base`` the error without."""
    if job.asked.leave_one_out:
        return [Score(site=unit.site, sites=unit.sites, without=base - harm[unit.site]) for unit in job.units]
    return [Score(site=unit.site, sites=unit.sites, alone=harm[unit.site] - base) for unit in job.units]


def _by_map(job: _Job) -> _Scored:
    """One column: points of mAP50-95 lost against the float network, a validation a unit."""
    steps: list[Unit | None] = [None, *job.units]
    keys = [unit.site if unit else "base" for unit in steps]
    sure: list[Confident] = []
    with asleep(job.model.gm):
        if any(key not in job.ledger for key in keys):
            job.ledger.add("float", _validated(job, frozenset(), sure))
        for index, (key, unit) in enumerate(zip(keys, steps, strict=True)):
            if key not in job.ledger:
                on = job.on(unit)
                job.ledger.add(key, _validated(job, on, sure) if on else job.ledger["float"])
            job.progress(index + 1, len(steps))
    lost = {key: job.ledger["float"][0] - job.ledger[key][0] for key in keys}
    return _scores(job, lost, lost["base"]), lost["base"] if job.asked.leave_one_out else None, None


def _validated(job: _Job, on: frozenset[str], sure: list[Confident]) -> tuple[float, float]:
    """mAP50-95 in points with the members ``on`` awake, and the disagreement with what ``sure`` holds, batch by batch;
    where it is empty it is filled."""
    from fxqat.evaluation.accuracy import evaluate
    from fxqat.evaluation.predictor import Predictor

    is_first, parts = not sure, list[tuple[float, float]]()
    main, *_ = job.model.final

    def predict(batch: Tensor) -> Any:
        output = run(job.model.gm, batch, on)[0]
        y = output[0] if isinstance(output, tuple) else output
        if is_first:
            sure.append(confident(main, y))
        parts.append(disagreement(sure[len(parts)], y))
        return output

    asked = job.asked
    model = Predictor.of(job.model, predict, name="a layout")
    found = evaluate(model, job.data, imgsz=asked.imgsz, batch=4, split=asked.split, limit=asked.images_limit)
    return 100 * found.map5095, ratio(parts)


_SCORES: dict[str, Callable[[_Job], _Scored]] = {"probe": _by_probe, "output": _by_output, "mAP": _by_map}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, -1..1: Pearson's of the ranks, ties sharing their mean rank; 0 where one is constant."""
    ranks = [_ranks(np.asarray(values, dtype=float)) for values in (a, b)]
    spread = [float(rank.std()) for rank in ranks]
    if not all(spread):
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / (spread[0] * spread[1]))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[where])
