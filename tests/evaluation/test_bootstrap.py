"""The bootstrap's mAP is Ultralytics' own, to the last bit, for any resample; its intervals mean what they say."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from detectors import NAMES, find_colours, shifted
from hypothesis import example, given
from hypothesis import strategies as st

from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, Matches, Predictor, evaluate
from fxqat.evaluation.bootstrap import Curves, paired_drift


def random_matches(generator: np.random.Generator, index: int, *, classes: int, busy: int, skill: float) -> Matches:
    """One image: up to ``busy`` labels and detections; at each IoU a label is found at most once, by its own class."""
    target = generator.integers(0, classes, generator.integers(0, busy + 1)).astype(np.float32)
    predicted = generator.integers(0, classes + 1, generator.integers(0, busy + 1)).astype(np.float32)
    tp = np.zeros((len(predicted), 10), bool)
    for threshold in range(10):
        for label in np.unique(target):
            candidates = np.flatnonzero((predicted == label) & (generator.random(len(predicted)) < skill))
            tp[candidates[: int((target == label).sum())], threshold] = True
    conf = generator.random(len(predicted)).astype(np.float32)
    return Matches(image=Path(f"{index}.jpg"), tp=tp, conf=conf, pred_cls=predicted, target_cls=target)


def reference(matches: list[Matches]) -> float:
    """Ultralytics' own number."""
    from ultralytics.utils.metrics import Metric, ap_per_class

    metric = Metric()
    columns = zip(*((match.tp, match.conf, match.pred_cls, match.target_cls) for match in matches), strict=True)
    metric.update(ap_per_class(*(np.concatenate(column) for column in columns))[2:])
    return float(metric.map)


def accuracy_of(matches: list[Matches]) -> Accuracy:
    return Accuracy(
        model="synthetic",
        map5095=reference(matches),
        map50=0.0,
        precision=0.0,
        recall=0.0,
        images=len(matches),
        boxes=sum(len(match.target_cls) for match in matches),
        classes=(),
        matches=tuple(matches),
        skipped=(),
    )


def synthetic(seed: int, *, images: int = 6, classes: int = 3, busy: int = 8, skill: float = 0.6) -> Accuracy:
    generator = np.random.default_rng(seed)
    drawn = [random_matches(generator, i, classes=classes, busy=busy, skill=skill) for i in range(images)]
    anchor = Matches(  # so that there is a label
        image=Path("anchor.jpg"),
        tp=np.ones((1, 10), bool),
        conf=np.array([0.5], np.float32),
        pred_cls=np.zeros(1, np.float32),
        target_cls=np.zeros(1, np.float32),
    )
    return accuracy_of([*drawn, anchor])


@given(seed=st.integers(0, 10**6), classes=st.integers(1, 5), skill=st.sampled_from([0.0, 0.1, 0.6, 1.0]))
@example(seed=0, classes=1, skill=1.0)  # no false positive before a true one: the curve slopes between points
def test_any_resample_equals_ultralytics_on_the_copied_images(seed, classes, skill):
    accuracy = synthetic(seed, classes=classes, skill=skill)
    generator = np.random.default_rng(seed + 1)
    pick = generator.integers(0, accuracy.images, accuracy.images)
    weights = np.bincount(pick, minlength=accuracy.images)
    copies = [accuracy.matches[index] for index in pick]
    # equal to the bit: confidences are distinct, so that sorting the copies leaves no freedom that shows
    assert Curves(accuracy).map5095(weights) == (reference(copies) if sum(len(c.target_cls) for c in copies) else 0.0)


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([2, 5, 256]))
def test_weights_of_one_equal_ultralytics_even_with_tied_confidences(seed, levels):
    """An INT8 model has few distinct confidences, and their order decides: it must be Ultralytics' order."""
    plain = synthetic(seed, images=12)
    tied = [dataclasses.replace(match, conf=np.round(match.conf * levels) / levels) for match in plain.matches]
    accuracy = accuracy_of(tied)
    assert Curves(accuracy).map5095(np.ones(accuracy.images, int)) == accuracy.map5095


def test_a_real_evaluation_is_reproduced(tiny_data):
    accuracy = evaluate(Predictor(name="shifted", predict=shifted(2), names=NAMES), tiny_data, imgsz=96)
    assert 0 < Curves(accuracy).map5095(np.ones(accuracy.images, int)) == accuracy.map5095


def test_no_label_drawn_counts_as_zero():
    accuracy = synthetic(3)
    empty = [index for index, match in enumerate(accuracy.matches) if not len(match.target_cls)]
    weights = np.zeros(accuracy.images, int)
    weights[empty] = 1
    assert Curves(accuracy).map5095(weights) == 0.0


def test_a_model_against_itself_is_exactly_zero():
    drift = paired_drift(synthetic(1), synthetic(1), resamples=50)
    assert (drift.points, drift.low, drift.high) == (0.0, 0.0, 0.0)
    assert str(drift) == "+0.00 [+0.00, +0.00]"


def test_a_worse_model_lies_below_zero_and_the_mirror_above(tiny_data):
    good = evaluate(Predictor(name="good", predict=find_colours, names=NAMES), tiny_data, imgsz=96)
    bad = evaluate(Predictor(name="bad", predict=shifted(4), names=NAMES), tiny_data, imgsz=96)
    drift, mirror = paired_drift(good, bad, resamples=200), paired_drift(bad, good, resamples=200)
    assert drift.points == 100 * (bad.map5095 - good.map5095)
    assert drift.low <= drift.points <= drift.high < 0
    assert (mirror.points, mirror.low, mirror.high) == pytest.approx((-drift.points, -drift.high, -drift.low))


def test_pairing_and_level_narrow_the_interval():
    """Dropping one detection in twenty from a model: on common draws the difference is known far better than mAP."""
    a = synthetic(5, images=120)
    generator = np.random.default_rng(0)
    thinned = [
        dataclasses.replace(match, tp=match.tp & (generator.random((len(match.tp), 1)) > 0.05)) for match in a.matches
    ]
    b = accuracy_of(thinned)
    paired = paired_drift(a, b, resamples=200)
    narrower = paired_drift(a, b, resamples=200, level=0.5)
    curves, draws = Curves(a), np.random.default_rng(0)
    alone = [
        100 * curves.map5095(np.bincount(draws.integers(0, a.images, a.images), minlength=a.images)) for _ in range(200)
    ]
    spread = np.quantile(alone, 0.975) - np.quantile(alone, 0.025)
    assert paired.high - paired.low < spread
    assert paired.low < narrower.low < narrower.high < paired.high


def test_the_seed_decides():
    a, b = synthetic(1, images=30), synthetic(2, images=30)
    assert paired_drift(a, b, resamples=20) == paired_drift(a, b, resamples=20)
    assert paired_drift(a, b, resamples=20) != paired_drift(a, b, resamples=20, seed=1)


def test_other_images_are_refused():
    with pytest.raises(
        Problem, match=r"^synthetic: was measured on 6 images, synthetic on 7 others; expected the same"
    ):
        paired_drift(synthetic(1), synthetic(1, images=5))


def test_a_coco_sized_set_is_fast():
    """336 images, 80 classes, about 64,000 detections: 1000 paired resamples must stay under 20 s."""
    a = synthetic(0, images=335, classes=80, busy=380, skill=0.3)
    begin = time.process_time()
    paired_drift(a, a, resamples=25)
    assert time.process_time() - begin < 20 * 25 / 1000 * 2  # twice the budget: the machine is shared
