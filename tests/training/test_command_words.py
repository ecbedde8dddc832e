"""The record of a training, restated as a command, trains the same way."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pytest

from fxqat.commands import train
from fxqat.training.command_words import restated
from fxqat.training.config import configure

USUAL = configure("d.yaml", None, "", {}).summary()


def given_again(words: list[str]) -> dict[str, Any]:
    """The options that ``fxqat train`` takes from ``words``."""
    parser = ArgumentParser()
    train.arguments(parser)
    return train._options(parser.parse_args(["x.fxqat", "--data", "d.yaml", *words]))


SECTIONS = (
    None,
    {"unlabelled": True, "lsq": True},
    {"distill": 1.0, "lsq": True, "lr0": 5e-5},
    {"task": 0.5, "distill": 2.0},
)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unlabelled": True, "lsq": True, "seed": 3, "epochs": 7, "imgsz": 320},
        {"unlabelled": True, "features": 0.5},
        {"imgsz": (192, 320)},
        {"unlabelled": False, "lsq": False},
        {"unlabelled": False, "distill": 1.0},
        {"distill": 1.0, "penalty": 0.1, "focal": 1.5, "device": "cpu"},
        {"device": "0,1", "batch": 8, "compile": False, "lr0": 2e-5, "optimizer": "SGD"},
        {"schedule": "StepLR", "schedule_options": {"step_size": 2}, "progressive": {"model.1?.**": 1, "**.cv2": 2}},
    ],
)
def test_restated_and_given_again_it_is_the_same(options, section):
    plan, usual = (configure("d.yaml", section, "p.yaml", given) for given in (options, {}))
    again = configure("d.yaml", section, "p.yaml", given_again(restated(plan.summary(), usual.summary())))
    assert again.overrides() == plan.overrides()
    assert again == plan


def test_nothing_is_said_that_goes_without_saying():
    plan = configure("d.yaml", None, "", {"unlabelled": True, "lsq": True})
    assert restated(plan.summary(), USUAL) == ["--epochs", "3", "--seed", "0", "--lsq", "--unlabelled"]
    assert restated(plan.summary(), plan.summary()) == ["--epochs", "3", "--seed", "0"]
    assert restated(USUAL, plan.summary())[4:] == ["--no-lsq", "--no-unlabelled", "--distill", "0.0"]


def test_a_record_of_an_older_version_lacks_options():
    summary = configure("d.yaml", None, "", {"epochs": 2}).summary()
    del summary["compile"], summary["loss"]["focal"]
    assert restated(summary, USUAL) == ["--epochs", "2", "--seed", "0"]
