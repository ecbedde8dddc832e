"""What to do with a model: the first rule of the table that applies, and the command that does it."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fxqat.commands.decision import next_command, policy_with_floats
from fxqat.commands.parser import command_line
from fxqat.evaluation.bootstrap import Drift
from fxqat.evaluation.latency import Latency
from fxqat.policy import Policy
from fxqat.report.actions import CORRECT, FLOAT, MEASURE, RUNTIME, SEARCH, SHIP, TARGET, TRAIN
from fxqat.report.decision import FEW, RULES
from fxqat.report.measurements import Measurements
from fxqat.report.verdict import Verdict, judge
from fxqat.runtime.verify import Difference
from fxqat.sensitivity.error_report import ErrorReport, SiteError


def drift(points: float) -> Drift:
    """An interval of a tenth of a point around ``points``."""
    return Drift(
        points=points, low=points - 0.1, high=points + 0.1, level=0.95, resamples=1000, images=128, changed=128
    )


def errors(*shares: float) -> ErrorReport:
    """Sites a, b, c ... that cause ``shares`` of the output's error."""
    names = "abcdefghijklmnopqrstuvwxyz"
    rows = [site(name, share) for name, share in zip(names, shares, strict=False)]
    return ErrorReport(**{**{one.name: None for one in fields(ErrorReport)}, "rows": tuple(rows)})


def site(name: str, share: float) -> SiteError:
    known = {"site": f"{name}.conv", "decided": name, "share": share}
    return SiteError(**{**{one.name: None for one in fields(SiteError)}, **known})


def timed(speed: float) -> Latency:
    numbers = {one.name: 0.0 for one in fields(Latency)}
    speeds = {"speed": speed, "speed_low": 0.9 * speed, "speed_high": 1.1 * speed}
    return Latency(**{**numbers, **speeds, "path": Path("x.onnx"), "shape": (1, 3, 64, 64)})


GOOD, BAD = Measurements(drift=drift(-0.1), codes=Difference(codes=9)), Measurements(drift=drift(-3.0))
SPREAD = errors(*[1 / 26] * 26)


@pytest.mark.parametrize(
    ("found", "action"),
    [
        (Measurements(), MEASURE),
        (GOOD, SHIP),
        (replace(GOOD, latency=timed(1.5)), SHIP),
        (replace(GOOD, latency=timed(0.95)), SHIP),  # the interval reaches above float's speed
        (replace(GOOD, latency=timed(0.8)), TARGET),
        (replace(GOOD, codes=Difference(codes=9, differing=1)), RUNTIME),
        (replace(BAD, codes=Difference(codes=9, differing=1)), RUNTIME),
        (replace(BAD, errors=errors(0.3, 0.4, 0.3)), FLOAT),
        (replace(BAD, errors=errors(0.3, 0.4, 0.3), trained=True), FLOAT),
        (BAD, CORRECT),
        (replace(BAD, corrected=True), TRAIN),
        (replace(BAD, errors=SPREAD), CORRECT),
        (replace(BAD, errors=SPREAD, corrected=True), TRAIN),
        (replace(BAD, errors=SPREAD, trained=True), SEARCH),
        (replace(BAD, errors=errors(*[0.51 / FEW] * FEW, *[0.049] * 10)), FLOAT),
        (replace(BAD, errors=errors(*[0.51 / (FEW + 1)] * (FEW + 1), *[0.049] * 10)), CORRECT),
    ],
)
def test_the_first_rule_that_applies_decides(found: Measurements, action: str) -> None:
    assert judge(found).action == action


def test_every_action_is_reached_and_has_words_of_its_own() -> None:
    assert [rule.action for rule in RULES] == [RUNTIME, MEASURE, TARGET, SHIP, FLOAT, CORRECT, TRAIN, SEARCH]


def test_layers_are_named_as_a_policy_names_them_worst_first() -> None:
    verdict = judge(replace(BAD, errors=errors(0.2, 0.35, 0.3, 0.15)))
    assert verdict.sites == ("b", "c")
    assert verdict.advice == "Keep these layers in float: b, c. They cause half of the output's error."
    assert judge(replace(GOOD, errors=errors(0.6, 0.4))).sites == ()


def verdict(action: str) -> Verdict:
    return Verdict(level="care", headline="", reasons=(), action=action, advice="")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.action)
def test_the_next_command_is_one_that_parses(rule) -> None:
    line = next_command(verdict(rule.action), source="best.pt", data="d.yaml", model="best_ptq.fxqat", file="b.onnx")
    if rule.action == SHIP:
        assert line == ""
        return
    program, *words = shlex.split(line)
    assert program == "fxqat"
    command_line(words)


@pytest.mark.parametrize("parent", ["w8a8", "mine.yaml"])
def test_the_policy_that_is_written_keeps_the_sites_in_float(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("version: 1\nextends: w8a8\n")
    text = policy_with_floats(parent, ["model.2.cv1.conv", "model.0.conv"])
    policy, base = Policy.parse(text, "floats.yaml"), Policy.load("w8a8")
    first = [(rule.site, rule.weight, rule.activation) for rule in policy.rules[:2]]
    assert first == [("model.2.cv1.conv", None, None), ("model.0.conv", None, None)]
    assert len(policy.rules) == len(base.rules) + 2
    assert policy.target == base.target
