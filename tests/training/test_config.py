"""Options: defaults, a policy's section, what is given, and every refusal by its text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ultralytics.engine.trainer import BaseTrainer

from fxqat.errors import Problem
from fxqat.policy import Policy
from fxqat.policy.resources import shipped
from fxqat.training.config import OPTIMIZERS, RECIPE, TrainingConfig, check_section, configure
from fxqat.training.losses import LossConfig

POLICY = """version: 1
target: ort-cpu
qat:
  epochs: 7
  lr0: 0.0002
{line}
rules:
  - {{site: "**", float: true}}
"""


def section(line: str) -> object:
    return Policy.parse(POLICY.format(line=line), "own.yaml").options["qat"]


def test_what_is_given_overrules_the_policy_which_overrules_the_defaults():
    config = configure("d.yaml", section("  penalty: 0.5"), "own.yaml", {"lr0": 0.1, "batch": 3, "fraction": 0.5})
    assert (config.epochs, config.batch, config.loss) == (7, 3, LossConfig(penalty=0.5))
    overrides = config.overrides()
    assert overrides["lr0"] == 0.1
    assert overrides["fraction"] == 0.5
    assert overrides["nbs"] == 3
    assert {name: overrides[name] for name in ("optimizer", "mosaic")} == {"optimizer": "AdamW", "mosaic": 0.0}
    assert overrides["warmup_bias_lr"] == RECIPE["warmup_bias_lr"] == 0.0


def test_unlabelled_learns_from_the_teacher_alone():
    assert configure("d.yaml", None, "", {"unlabelled": True}).loss == LossConfig(task=0.0, distill=1.0)
    assert configure("d.yaml", None, "", {"unlabelled": True, "distill": 2.0}).loss.distill == 2.0


def test_a_summary_is_plain():
    config = configure("d.yaml", section("  progressive: {'model.0.**': 1}"), "own.yaml", {})
    assert config.summary()["progressive"] == {"model.0.**": 1}
    assert type(config.summary()["progressive"]) is dict


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  epoch: 3", "own.yaml:6: unknown option 'epoch'; did you mean 'epochs'?"),
        ("  amp: true", "own.yaml:6: amp cannot be set: quantizers compute in float32"),
        ("  batch: 0", "own.yaml:6: batch: 0 is not legal, expected 1 or more"),
        ("  lsq: 3", "own.yaml:6: lsq: 3 is not legal, expected true or false"),
        ("  freeze_bn: 2", "own.yaml:6: freeze_bn: 2 is not legal, expected 0 to 1"),
        ("  schedule: step", "own.yaml:6: schedule: 'step' is not legal, expected one of cosine, linear, qat"),
        ("  penalty: -1", "own.yaml:6: penalty: -1 is not legal, expected 0 or more"),
        ("  progressive: [1]", r"own.yaml:6: progressive: \[1\] is not legal, expected a mapping"),
        ("  progressive: {a: -1}", "own.yaml:6: progressive: -1 is not legal, expected epochs, 0 or more"),
        ("  fliplr: -1", "own.yaml:6: 'fliplr=-1' is an invalid value"),
        ("  device: 0,1", None),
        ("  device: 0", None),
        ("  task: 0", None),
    ],
)
def test_a_section_is_refused_with_its_line(line, says):
    if says is None:
        check_section(section(line), "own.yaml")
        return
    with pytest.raises(Problem, match=says):
        check_section(section(line), "own.yaml")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epoch": 3}, "train: unknown option 'epoch'; did you mean 'epochs'?"),
        ({"resume": True}, "train: resume cannot be set"),
        ({"epochs": 2.5}, "train: epochs: 2.5 is not legal, expected 1 or more"),
        (
            {"lr0": 1e12},
            "train: 'lr0=1000000000000.0' is an invalid value. Valid 'lr0' values are between 0.0 and 1.0.",
        ),
        ({"optimizer": "Adamm"}, "train: optimizer: 'Adamm' is not legal, expected one of AdamW, Adam, Adamax"),
        ({"workers": 1.5}, "train: 'workers=1.5' is of invalid type float"),
        ({"task": 0.0}, "train: task: 0 is not legal where distill and features are 0 too"),
    ],
)
def test_what_is_given_is_refused_by_name(given, says):
    with pytest.raises(Problem, match=says):
        configure("d.yaml", None, "", given)


@pytest.mark.parametrize("name", shipped("policies"))
def test_shipped_sections_are_legal(name):
    policy = Policy.load(name)
    check_section(policy.options.get("qat"), policy.name)


def test_a_section_is_a_mapping():
    with pytest.raises(Problem, match=r"own.yaml: qat is a list; expected a mapping of options to values"):
        check_section([1], "own.yaml")


@pytest.mark.parametrize("name", [*OPTIMIZERS, "sgd"])
def test_ultralytics_makes_every_optimizer_that_is_legal(name):
    chosen = TrainingConfig(data="d.yaml", options={"optimizer": name}).overrides()
    trainer = SimpleNamespace(args=SimpleNamespace(**chosen), data={})
    layer = torch.nn.Conv2d(3, 8, 3)
    layer.model = [SimpleNamespace()]  # the head, whose class branch MuSGD looks for
    made = BaseTrainer.build_optimizer(trainer, layer, name=chosen["optimizer"])
    assert sum(len(group["params"]) for group in made.param_groups) == 2


def test_what_has_a_field_is_no_option():
    with pytest.raises(ValueError, match="options: 'imgsz' is not legal, expected options of Ultralytics alone"):
        TrainingConfig(data="d.yaml", options={"imgsz": 96})
