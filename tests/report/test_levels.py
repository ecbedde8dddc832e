"""Levels of a metric's difference: over metrics, intervals and numbers of images; no claim that chance explains."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fxqat.commands.decision import next_command
from fxqat.evaluation.bootstrap import Curves, Drift, paired_drift
from fxqat.evaluation.classification import from_guesses
from fxqat.evaluation.metrics import Accuracy, Matches
from fxqat.models.families import FAMILIES
from fxqat.models.family import Metric
from fxqat.report.actions import CORRECT, MEASURE, SHIP
from fxqat.report.levels import CHANGED, FREE, LEVELS, UNCHANGED, images_needed, level_of
from fxqat.report.measurements import Measurements
from fxqat.report.verdict import judge

BAD, WITHIN, CARE, UNSHOWN, OPEN = (level.headline for level in LEVELS)
METRICS = {task: family.metric for task, family in FAMILIES.items()}
PLENTY = 40


def drift(points: float, low: float, high: float, *, images: int = 100, changed: int = PLENTY) -> Drift:
    known = {"level": 0.95, "resamples": 1000, "images": images, "changed": changed}
    return Drift(points=points, low=low, high=high, **known)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("images", [50, 100, 336, 5000])
@pytest.mark.parametrize(
    ("points", "low", "high", "changed", "headline"),
    [
        (-3.0, -4.0, -1.01, PLENTY, BAD),
        (-3.0, -4.0, -1.0, PLENTY, CARE),  # it may be one point, no more
        (-0.3, -0.5, -0.1, PLENTY, WITHIN),
        (-0.3, -0.51, -0.1, PLENTY, CARE),  # a loss for certain, perhaps more than half a point
        (-0.3, -0.51, 0.0, PLENTY, UNSHOWN),
        (-0.6, -1.2, -0.01, PLENTY, CARE),
        (-0.6, -1.2, 0.0, PLENTY, OPEN),  # reaches 0
        (-3.0, -7.0, 0.5, PLENTY, OPEN),  # as large as it seems, chance explains it
        (1.0, 0.2, 1.8, PLENTY, WITHIN),
        (1.0, -0.8, 2.8, PLENTY, UNSHOWN),
        (-3.0, -4.0, -2.0, CHANGED - 1, OPEN),  # too few images to believe the interval
        (-3.0, -4.0, -2.0, CHANGED, BAD),
        (-0.3, -0.4, -0.2, CHANGED - 1, UNSHOWN),
        (0.0, 0.0, 0.0, 0, UNSHOWN),
    ],
)
def test_the_interval_decides_whatever_the_metric_and_the_number_of_images(
    metric: Metric, images: int, points: float, low: float, high: float, changed: int, headline: str
) -> None:
    seen = drift(points, low, high, images=images, changed=changed)
    verdict = judge(Measurements(drift=seen, before=0.5, after=0.5 + points / 100, metric=metric.name))
    assert verdict.headline == headline
    assert verdict.reasons[0].startswith(f"{metric.name} goes from 0.5000 to ")
    assert (verdict.level == "open") == (headline == OPEN) == (verdict.action == MEASURE)
    assert not (verdict.images and headline in (BAD, WITHIN, CARE)), "what is settled needs no more images"
    assert verdict.images == 0 or verdict.images > images


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (drift(-1.0, -3.0, 0.0, changed=1), 3600),  # 100 * (3 / 0.5) ** 2
        (drift(-0.8, -1.7, 0.1, images=336), 4400),  # 336 * (1.8 / 0.5) ** 2 = 4354.6
        (drift(-0.2, -0.7, 0.3, images=336), 1400),  # 336 * 2 ** 2 = 1344
        (drift(0.0, 0.0, 0.0, changed=0), UNCHANGED),
        (drift(0.0, 0.0, 0.0, changed=0, images=UNCHANGED), 0),
        (drift(-0.6, -0.8, -0.4, images=700, changed=2), 2100),  # until 6 have changed
        (drift(-0.4, -0.7, -0.1), 0),
        (drift(-3.0, -4.0, -2.0), 0),
        (drift(-0.1, -0.4, 0.2), 0),
    ],
)
def test_so_many_images_are_needed_that_the_interval_is_narrower_than_half_a_point(seen: Drift, wanted: int) -> None:
    assert images_needed(seen) == wanted
    if level_of(seen).headline == OPEN:
        assert (seen.high - seen.low) * math.sqrt(seen.images / wanted) <= FREE


def test_no_interval_narrower_than_half_a_point_leaves_the_level_open() -> None:
    """What the number of images is derived from; the point estimate lies in its interval."""
    lows = np.linspace(-2, 1, 301)
    for low in lows:
        for points in np.linspace(low, low + 0.99 * FREE, 20):
            assert level_of(drift(points, low, low + 0.99 * FREE)).settled, (low, points)


def classified(right: np.ndarray) -> Accuracy:
    """Top-1 of a classifier of two classes that is right or wrong on each image."""
    order = np.stack([~right, right], axis=1).astype(int)
    metric = METRICS["classify"]
    paths = [Path(f"{index}.jpg") for index in range(len(right))]
    return from_guesses("m", metric, {0: "cat", 1: "dog"}, paths, order, np.zeros(len(right), int))


def detected(right: np.ndarray) -> Accuracy:
    """mAP50-95 of a detector that finds the one object of each image, or not."""
    matches = [
        Matches(
            image=Path(f"{index}.jpg"),
            tp=np.full((1, 10), found),
            conf=np.array([0.9 - 1e-5 * index]),
            pred_cls=np.zeros(1),
            target_cls=np.zeros(1),
        )
        for index, found in enumerate(right)
    ]
    figures = {"map50": 0.0, "precision": 0.0, "recall": 0.0, "images": len(matches), "boxes": len(matches)}
    found = Accuracy(model="m", map5095=0.0, classes=(), matches=tuple(matches), skipped=(), **figures)
    return Accuracy(**{**vars(found), "map5095": Curves(found).map5095(np.ones(len(matches), int))})


def changed(images: int, worse: int, better: int, of: Callable[[np.ndarray], Accuracy], resamples: int = 200) -> Drift:
    """Of models of which ``worse`` images got worse and ``better`` better, here and there; of the others every second
    is right, before and after."""
    places = np.random.default_rng(0).permutation(images)[: worse + better]
    before = np.arange(images) % 2 == 0
    before[places] = np.arange(worse + better) < worse
    after = before.copy()
    after[places] = ~before[places]
    return paired_drift(of(before), of(after), resamples=resamples)


def by_chance(worse: int, better: int) -> float:
    """The exact two-sided sign test: how likely as many changes are so one-sided where neither model is better."""
    total = worse + better
    tail = sum(math.comb(total, count) for count in range(max(worse, better), total + 1)) / 2**total
    return min(1.0, 2 * tail)


@pytest.mark.parametrize("of", [classified, detected])
@pytest.mark.parametrize(
    ("worse", "better"), [(0, 0), (1, 0), (3, 0), (5, 0), (6, 0), (12, 0), (3, 2), (5, 4), (9, 3), (16, 4)]
)
def test_a_loss_is_claimed_only_where_chance_does_not_explain_it(
    of: Callable[[np.ndarray], Accuracy], worse: int, better: int
) -> None:
    """Against an exact test. A percentile interval is a little too narrow for few changes: up to a tenth instead of a
    twentieth."""
    seen = changed(100, worse, better, of)
    assert seen.changed == worse + better
    claimed = level_of(seen).headline in (BAD, CARE)
    assert claimed <= (by_chance(worse, better) < 0.1), seen
    assert claimed >= (by_chance(worse, better) < 0.01), seen


def test_one_image_of_a_hundred_is_no_loss_and_twelve_are() -> None:
    one = changed(100, 1, 0, classified, 1000)
    verdict = judge(Measurements(drift=one, before=1.0, after=0.99, metric="top-1"))
    assert (one.changed, one.points, one.high) == (1, pytest.approx(-1.0), 0.0)
    assert (verdict.level, verdict.headline, verdict.action) == ("open", OPEN, MEASURE)
    assert verdict.images == 3600
    assert verdict.advice == (
        "Validate it on more images before it is used: on about 3,600 the interval would be narrower than half a "
        "point. If there are no more: correct the biases: the error comes from everywhere, and this takes one more "
        "calibration and no labels."
    )
    twelve = judge(Measurements(drift=changed(100, 12, 0, classified), before=1.0, after=0.88))
    assert (twelve.level, twelve.headline, twelve.action) == ("bad", BAD, CORRECT)


def test_what_shows_no_loss_says_how_many_images_would_tell() -> None:
    seen = Measurements(drift=drift(-0.2, -0.7, 0.3, images=336), before=0.3, after=0.298)
    verdict = judge(seen)
    assert (verdict.headline, verdict.action) == (UNSHOWN, SHIP)
    assert verdict.reasons[1] == "About 1,400 images would show whether the loss is below half a point."


@pytest.mark.parametrize(
    ("pool", "data", "words"),
    [(5000, "d.yaml", " (5,000 are there)."), (3599, "MORE_IMAGES", ". If there are no more: correct the biases")],
)
def test_the_next_command_validates_on_as_many(pool: int, data: str, words: str) -> None:
    seen = drift(-1.0, -3.0, 0.0, changed=1)
    verdict = judge(Measurements(drift=seen, before=1.0, after=0.99, pool=pool))
    line = next_command(verdict, source="m.pt", data="d.yaml", model="m_ptq.fxqat", file="m_int8.onnx")
    assert line == f"fxqat report m_ptq.fxqat --data {data} --onnx m_int8.onnx --val 3600 --images 64"
    assert f"on about 3,600 the interval would be narrower than half a point{words}" in verdict.advice
