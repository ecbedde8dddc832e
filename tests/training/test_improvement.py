"""The gain of the best epoch, from what was validated twice."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fxqat.evaluation.validators import SquareValidator
from fxqat.models.families import FAMILIES
from fxqat.training.improvement import gain, keep

IMAGES = 20
VAL_IMAGES = 12  # of tiny_data


def validated(right: int) -> Any:
    """A validator that met one label in each image, and found it in ``right`` of them."""
    tp = [np.full((1, 10), image < right) for image in range(IMAGES)]
    ones, zeros = [np.ones(1) for _ in tp], [np.zeros(1) for _ in tp]
    box = SimpleNamespace(ap_class_index=[0], ap=[right / IMAGES], ap50=[right / IMAGES], mp=0.0, mr=0.0)
    box.map = box.map50 = right / IMAGES
    metrics = SimpleNamespace(box=box, nt_per_class=np.array([IMAGES]))
    statistics = {"tp": tp, "conf": ones, "pred_cls": zeros, "target_cls": zeros}
    found = SimpleNamespace(metrics=metrics, names={0: "sign"}, statistics=statistics)
    found.accuracy = partial(SquareValidator.accuracy, found)
    return found


def test_the_gain_is_that_from_the_start_to_the_best(tmp_path):
    assert gain(tmp_path, 2) is None
    keep(validated(10), FAMILIES["detect"], tmp_path, 0)
    assert gain(tmp_path, 2) is None
    keep(validated(12), FAMILIES["detect"], tmp_path, 1)
    keep(validated(15), FAMILIES["detect"], tmp_path, 2)
    found = gain(tmp_path, 2)
    assert found is not None
    assert found.points == pytest.approx(25)
    assert 0 < found.low < 25 < found.high
    assert found.images == IMAGES


def test_a_training_keeps_what_it_validated(trainer):
    run = trainer("kept", epochs=1)
    run.train()
    run.best_epoch, run.kept = 1, run._average()  # as if the epoch had been better
    keep(run.validator, run.given.source.family, run.wdir, 1)
    told = run.result().recipe.training
    assert told["gain"]["images"] == VAL_IMAGES
    assert told["gain"]["points"] == pytest.approx(
        100 * (told["map5095"][1] - told["map5095"][0]), abs=1e-3
    )  # Ultralytics gives 5 decimals of each
