"""The rows of bench/ptq.py are policies that a YOLOv8n accepts."""

from __future__ import annotations

import pytest

import fxqat
from bench.ptq import CORRECTIONS, METHODS, OF_LOGITS, POLICIES, changed, main, rows
from fxqat.passes import Rules, fusing, sites
from fxqat.passes.corrections.registry import corrections


@pytest.fixture(scope="module")
def yolov8n_sites():
    gm, _ = fusing(Rules.load()).run(fxqat.load("yolov8n.yaml").gm)
    return sites(gm)


def test_there_is_every_method_alone_and_every_correction_with_the_shipped_one():
    found = rows(POLICIES, [])
    assert len(found) == 2 * (len(METHODS) + len(CORRECTIONS) - 1) + len(OF_LOGITS)
    assert {row.policy for row in found if row.method in OF_LOGITS} == {"w8a8"}
    assert len({row.label for row in found}) == len(found)


def test_only_keeps_the_labels_that_hold_a_text():
    found = rows(POLICIES, ["w8a8 / entropy", "critical / shipped / none"])
    assert [row.label for row in found] == ["critical / shipped / none", "w8a8 / entropy / none"]


@pytest.mark.parametrize("row", rows(POLICIES, []), ids=lambda row: row.label)
def test_a_row_is_a_policy_that_decides_every_site(row, yolov8n_sites):
    policy = changed(row.policy, row.method, row.correction)
    assert len(policy.assign(yolov8n_sites)) == len(yolov8n_sites)
    assert len(corrections(policy)) == len(CORRECTIONS[row.correction])


def test_each_method_reaches_the_specs(yolov8n_sites):
    for method, wanted in (("shipped", ("sigmoid", None)), ("box logits through SiLU", ("sigmoid", "silu"))):
        decided = changed("w8a8", method, "none").assign(yolov8n_sites)
        found = tuple(decided[f"model.22.{branch}.0.2"].qconfig.activation.through for branch in ("cv3", "cv2"))
        assert found == wanted
    decided = changed("w8a8", "box logits in float", "none").assign(yolov8n_sites)
    assert [decided[f"model.22.{branch}.0.2"].qconfig.is_float for branch in ("cv3", "cv2")] == [False, True]
    decided = changed("critical", "entropy", "none").assign(yolov8n_sites)
    assert decided["model.0.conv"].preactivation.method == "entropy"


def test_a_text_that_no_row_holds_is_an_error_of_one_line(capsys):
    assert main(["--weights", "w.pt", "--calibration", "c", "--data", "d", "--only", "nothing"]) == 2
    assert capsys.readouterr().err == "--only: ['nothing'] names no row; leave it out to see every label\n"
