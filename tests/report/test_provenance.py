"""What made a model, as words and as commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fxqat.models.detector import Detector
from fxqat.passes.corrections.registry import named, options
from fxqat.report.provenance import provenance
from fxqat.training.config import configure


def test_a_trained_model_says_how_it_was_trained(calibrated: Detector) -> None:
    plan = configure("signs.yaml", None, "", {"epochs": 2, "fliplr": 0.0})
    record = {"config": plan.summary(), "epoch": 1, "best_epoch": 1, "map5095": [0.5, 0.52, 0.51]}
    trained = Detector(calibrated.gm, calibrated.source, replace(calibrated.recipe, training=record))
    assert "unlabelled: true" in trained.recipe.policy_text, "what overrules the policy has to be said"
    found = provenance(trained, Path("signs_qat.fxqat"), "fxqat report signs_qat.fxqat", None)
    assert [line.split()[1] for line in found.commands] == ["prepare", "calibrate", "train", "report"]
    assert found.commands[2].endswith(
        "_ptq.fxqat --data signs.yaml --epochs 2 --seed 0 --imgsz 640 --no-lsq --no-unlabelled --distill 0.0"
        " --set fliplr=0.0 -o signs_qat.fxqat"
    )
    assert found.model["Trained"] == (
        "2 epochs on signs.yaml, 640 px; this is epoch 1: mAP50-95 0.5200, 0.5000 before training"
    )
    assert provenance(calibrated, Path("x.fxqat"), "", None).model["Trained"] == "no"


def said(model: Detector, command: str) -> str:
    """The line with ``command`` of what made ``model``."""
    found = provenance(model, Path("x_ptq.fxqat"), "", None)
    return next(line for line in found.commands if line.startswith(f"fxqat {command} "))


def recorded(calibrated: Detector, *corrections: str, **changes: object) -> Detector:
    """``calibrated`` after the named corrections, and with other changes to its recipe."""
    ran = [{"name": one.name, "options": options(one), "says": ""} for one in named(corrections)]
    calibration = {**calibrated.recipe.calibration, **({"corrections": ran} if ran else {})}
    recipe = replace(calibrated.recipe, calibration=calibration, **changes)
    return Detector(calibrated.gm, calibrated.source, recipe)


def test_corrections_that_are_not_the_policys_are_said(calibrated: Detector) -> None:
    with_one = calibrated.recipe.policy_text + "corrections: [bias_correction]\n"
    assert "--correct" not in said(calibrated, "calibrate")
    assert " --correct bias_correction -o" in said(recorded(calibrated, "bias_correction"), "calibrate")
    assert "--correct" not in said(recorded(calibrated, "bias_correction", policy_text=with_one), "calibrate")
    assert " --correct none -o" in said(recorded(calibrated, policy_text=with_one), "calibrate")


def test_a_target_that_is_not_the_policys_is_said(calibrated: Detector) -> None:
    assert "--target" not in said(calibrated, "prepare")
    assert " --target litert -o" in said(recorded(calibrated, target="litert"), "prepare")
    before = {**calibrated.recipe.calibration, "retargeted": [{"from": "ort-cpu"}]}
    retargeted = recorded(calibrated, target="openvino")
    retargeted.recipe = replace(retargeted.recipe, calibration=before)
    assert "--target" not in said(retargeted, "prepare")
