"""Sensitivity: the three ways against each other, rows kept by content, and the rank correlation."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fxqat
from fxqat.data import images as pictures
from fxqat.errors import Problem
from fxqat.models.detector import Detector, cut
from fxqat.models.links import divergence
from fxqat.passes.selective import asleep, run
from fxqat.sensitivity.policy_groups import downstream, units
from fxqat.sensitivity.result_log import Ledger, fingerprint
from fxqat.sensitivity.sensitivity import Sensitivity, SensitivityOptions, measure, spearman


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, images: torch.Tensor) -> Path:
    """Two of ``images`` as PNG files."""
    place = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(images[:2]):
        pixels = (image.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
        cv2.imwrite(str(place / f"{index}.png"), pixels)
    return place


@pytest.fixture(scope="module")
def probed(calibrated: Detector, folder: Path) -> Sensitivity:
    return measure(calibrated, folder, SensitivityOptions(imgsz=64, probes=30))


def test_units_are_the_policys_sites_and_blocks(calibrated):
    sites, blocks = units(calibrated.gm), units(calibrated.gm, "block")
    assert [unit.site for unit in sites[:3]] == ["images", "model.0.conv", "model.1.conv"]
    assert len(sites[1].nodes) == 4  # the layer, and quantizers after Conv, Sigmoid and Mul
    names = [name for unit in sites for name in unit.nodes]
    assert len(set(names)) == len(names)
    assert sorted(names) == sorted(name for unit in blocks for name in unit.nodes)
    assert {"model.2", "model.22.cv2", "model.22.cv3"} < {unit.site for unit in blocks}


def test_what_is_downstream_is_all_that_changes(calibrated, images):
    gm = calibrated.gm
    unit = next(unit for unit in units(gm) if unit.site == "model.22.cv3.1.0.conv")
    reached = downstream(gm, unit.nodes)
    assert set(unit.nodes) < reached
    assert not any("cv2" in name for name in reached)


def test_output_measures_what_switching_a_unit_does(calibrated, folder):
    chosen = ("model.0.conv", "model.15.cv2.conv")
    found = measure(calibrated, folder, SensitivityOptions(by="output", imgsz=64, only=chosen))
    left = measure(calibrated, folder, SensitivityOptions(by="output", imgsz=64, only=chosen, leave_one_out=True))
    shown = list(pictures.batches(pictures.image_paths(folder), 64, 1))
    view = cut(calibrated.gm, 1)
    every = {unit.site: set(unit.nodes) for unit in units(calibrated.gm)}
    whole = set().union(*every.values())

    def harm(on: set[str]) -> float:
        pairs = [(run(view, one, ()), run(view, one, on)) for one in shown]
        return float(np.mean([float(divergence(calibrated.compared, *pair)) for pair in pairs]))

    with asleep(view):
        for row, other in zip(found.rows, left.rows, strict=True):
            # the same arithmetic on the same values
            assert row.alone == pytest.approx(harm(every[row.site]), rel=1e-6)
            assert other.without == pytest.approx(harm(whole) - harm(whole - every[row.site]), rel=1e-6)
        assert left.total == pytest.approx(harm(whole), rel=1e-6)


def test_the_probe_ranks_as_the_output_does(calibrated, folder, probed):
    measured = measure(calibrated, folder, SensitivityOptions(by="output", imgsz=64))
    assert [row.site for row in measured.rows] == [row.site for row in probed.rows]
    pairs = [(one.alone, other.alone) for one, other in zip(probed.rows, measured.rows, strict=True)]
    assert spearman(*zip(*pairs, strict=True)) > 0.9


def test_effects_predict_any_set(probed):
    sites = [row.site for row in probed.rows]
    assert probed.predict(sites) == pytest.approx(probed.total)
    row = probed.rows[3]
    assert probed.predict([row.site]) == pytest.approx(row.alone)
    assert probed.predict([site for site in sites if site != row.site]) == pytest.approx(probed.total - row.without)


def test_critical_is_the_fewest_that_cause_the_share(probed):
    half = probed.critical(0.5)
    harm = {row.site: row.alone for row in probed.rows}
    whole = sum(harm.values())
    assert sum(harm[site] for site in half) >= 0.5 * whole > sum(harm[site] for site in half[:-1])
    assert half == [row.site for row in probed.sorted()][: len(half)]


def test_get_critical_layers_is_in_the_api(calibrated, folder):
    assert fxqat.get_critical_layers(calibrated, folder, share=0.3, imgsz=64, images_limit=2)[0].startswith("model.")


def test_rows_are_kept_by_content(calibrated, folder, tmp_path):
    asked = SensitivityOptions(by="output", imgsz=64, only=("model.0.conv",))
    steps: list[tuple[int, int]] = []
    first = measure(calibrated, folder, asked, work=tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    content["rows"]["0"]["model.0.conv"] = 100.0  # a mark: a second run must take it from here
    file.write_text(json.dumps(content))
    second = measure(calibrated, folder, asked, work=tmp_path)
    assert second.rows[0].alone > 40 > first.rows[0].alone
    other = measure(
        calibrated, folder, SensitivityOptions(by="output", imgsz=96, only=("model.0.conv",)), work=tmp_path
    )
    assert len(list(tmp_path.iterdir())) == 2
    assert other.rows[0].alone < 40


def test_the_fingerprint_sees_every_number(yolov8n, images):
    model = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images[:1]])
    before = fingerprint(model.gm)
    fake = model.gm.get_submodule("quantizer.model_0_conv")
    fake.scale.mul_(1 + 2**-20)
    assert fingerprint(model.gm) != before


def test_a_damaged_ledger_is_refused(tmp_path):
    ledger = Ledger(tmp_path, "x", {"a": 1})
    ledger.add("row", 1.5)
    assert Ledger(tmp_path, "x", {"a": 1})["row"] == 1.5
    assert "row" not in Ledger(tmp_path, "x", {"a": 2})
    ledger.path.write_text("{")
    with pytest.raises(Problem, match=r"is damaged; expected what fxqat wrote there; delete it"):
        Ledger(tmp_path, "x", {"a": 1})


def plain_ranks(values: tuple[int, ...]) -> list[float]:
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_rank_correlation_is_pearsons_of_the_ranks(pairs):
    a, b = zip(*pairs, strict=True)
    constant = len(set(a)) == 1 or len(set(b)) == 1
    expected = 0.0 if constant else np.corrcoef(plain_ranks(a), plain_ranks(b))[0, 1]
    assert spearman(a, b) == pytest.approx(expected, abs=1e-12)
