"""Finished work is found again by what it depends on, and a damaged file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectors import NAMES, shifted

import fxqat
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, Predictor, evaluate
from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.cache import ResultCache
from fxqat.models.detector import Detector
from fxqat.sensitivity.result_log import fingerprint


@pytest.fixture(scope="module")
def found(tiny_data: Path) -> Accuracy:
    return evaluate(Predictor(name="moved", predict=shifted(3.0), names=NAMES), tiny_data, imgsz=96)


def test_an_accuracy_read_again_is_the_same(found: Accuracy, tmp_path: Path) -> None:
    write(found, tmp_path / "x.npz")
    again = read(tmp_path / "x.npz")
    numbers = ("model", "map5095", "map50", "precision", "recall", "images", "boxes")
    assert [getattr(again, name) for name in numbers] == [getattr(found, name) for name in numbers]
    assert paired_drift(found, again).points == 0
    for one, other in zip(found.matches, again.matches, strict=True):
        assert one.image == other.image
        for column in ("tp", "conf", "pred_cls", "target_cls"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_it_is_made_once_for_what_it_depends_on(found: Accuracy, tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> Accuracy:
        made.append(1)
        return found

    for what, count in (({"a": 1}, 1), ({"a": 1}, 1), ({"a": 2}, 2)):
        assert ResultCache(tmp_path).accuracy(what, make).map5095 == found.map5095
        assert len(made) == count
    assert ResultCache(None).accuracy({"a": 1}, make) is found


def test_a_detector_comes_back_with_its_ranges(calibrated: Detector, tmp_path: Path) -> None:
    for _ in range(2):
        again = ResultCache(tmp_path / "new").detector({"b": 1}, lambda: calibrated)
        assert fingerprint(again.gm) == fingerprint(calibrated.gm)
        assert again.recipe.calibration == calibrated.recipe.calibration
    assert len(list((tmp_path / "new").iterdir())) == 1
    assert isinstance(fxqat.load(next((tmp_path / "new").iterdir())), Detector)


def test_refusals(found: Accuracy, tmp_path: Path) -> None:
    write(found, tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(Problem, match=r"x\.npz: is damaged; expected what fxqat wrote there; delete it"):
        read(tmp_path / "x.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match=r"cannot be made \(Not a directory\); choose another --work"):
        ResultCache(tmp_path / "file" / "work")
