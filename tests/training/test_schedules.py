"""Learning rates by epoch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.utils.torch_utils import one_cycle

from fxqat.errors import Problem
from fxqat.training.schedules import Cosine, Linear, QATLearningRateScheduler, make_schedule

EPOCHS = st.integers(1, 300)
SHARE = st.floats(0, 1)


@given(EPOCHS, SHARE, st.floats(0.001, 1))
def test_cosine_is_ultralytics_one_cycle(epochs, share, last):
    assert Cosine(epochs=epochs, last=last)(share * epochs) == pytest.approx(one_cycle(1, last, epochs)(share * epochs))


@given(EPOCHS, SHARE, st.floats(0.001, 1))
def test_linear_is_ultralytics_own(epochs, share, last):
    expected = max(1 - share, 0) * (1 - last) + last
    assert Linear(epochs=epochs, last=last)(share * epochs) == pytest.approx(expected)


@given(EPOCHS, SHARE)
def test_the_four_phases_join(epochs, share):
    schedule = QATLearningRateScheduler(epochs=epochs, rate=1.0)
    here, next_ = schedule(share * epochs), schedule(min(share + 1e-6, 1) * epochs)
    assert 0 < here <= 1
    # the steepest piece is the warm-up, 0.9 over a tenth of the training
    assert abs(here - next_) <= 9e-6 * 1.01


def test_the_four_phases_by_name():
    schedule = QATLearningRateScheduler(epochs=10, rate=0.5, last=0.1)
    names = [schedule.phase(epoch) for epoch in range(10)]
    assert names == ["warm-up", *["pre-quantization"] * 2, *["qat"] * 3, *["decay"] * 4]
    assert [schedule(epoch) for epoch in (0, 1, 3, 10)] == pytest.approx([0.1, 1.0, 0.5, 0.1])


def test_step_lr_is_torchs():
    schedule = make_schedule("StepLR", {"step_size": 2, "gamma": 0.1}, epochs=6, last=0.01)
    assert [schedule(epoch, ()) for epoch in (0, 1, 2, 3.5, 4)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_warm_restarts_start_again():
    schedule = make_schedule("CosineAnnealingWarmRestarts", {"T_0": 3}, epochs=6, last=0.01)
    assert schedule(0, ()) == schedule(3, ()) == 1
    assert schedule(2, ()) == pytest.approx(0.25)


def test_a_plateau_of_map_lowers_the_rate():
    schedule = make_schedule("ReduceLROnPlateau", {"patience": 1, "factor": 0.5}, epochs=9, last=0.01)
    history = [0.1, 0.2, 0.2, 0.2, 0.3]
    assert [schedule(epoch, history) for epoch in range(6)] == [1, 1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "epochs", "factors"),
    [
        ("StepLR", 6, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("StepLR", 2, [1, 0.1]),
        ("CosineAnnealingWarmRestarts", 4, [1, 0.5, 1, 0.5]),
        ("CosineAnnealingWarmRestarts", 1, [1]),
        ("ReduceLROnPlateau", 2, [1, 1]),
    ],
)
def test_torchs_by_name_alone(name, epochs, factors):
    schedule = make_schedule(name, {}, epochs=epochs, last=0.01)
    assert [schedule(epoch, [0.1] * epochs) for epoch in range(epochs)] == pytest.approx(factors)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("step", {}, "schedule: unknown schedule 'step'; expected one of: cosine, linear, qat"),
        ("StepLR", {"size": 2}, "schedule_options: StepLR: .*'size'"),
        ("cosine", {"final": 1}, "schedule_options: cosine: .*'final'"),
        (
            "qat",
            {"qat": 0.9},
            "schedule_options: qat: warmup, prequantization, qat: .* expected shares that sum below 1",
        ),
    ],
)
def test_refusals(name, options, says):
    with pytest.raises(Problem, match=says):
        make_schedule(name, options, epochs=3, last=0.01)
