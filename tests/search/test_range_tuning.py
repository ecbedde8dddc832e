"""Changes of a policy's numbers: what is tried, what is kept, and that a gain within chance is none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import yaml
from torch import Tensor

from fxqat.policy import Policy
from fxqat.search.range_tuning import CHANGES, improved

BASE = Policy.load("w8a8")
LARGEST, CUT, RANGES, BEFORE, BIAS = CHANGES


class Scripted:
    """Gives each image a divergence, by what a policy is for; notes the policies."""

    def __init__(self, gains: Mapping[str, float], spread: float = 0.0) -> None:
        self.gains, self.spread, self.seen = gains, spread, dict[str, Policy]()

    def __call__(self, policy: Policy, what: str) -> Tensor:
        self.seen[what] = policy
        uneven = torch.tensor([1.0, -1.0, 1.0, -1.0]) * self.spread
        return torch.tensor([1.0, 2.0, 3.0, 4.0]) - self.gains.get(what, 0.0) + uneven * (what != "the start")


def specs(policy: Policy) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = yaml.safe_load(policy.text)["specs"]
    return found


def test_each_change_is_tried_on_top_of_those_that_helped():
    asked = Scripted({LARGEST: -1.0, CUT: -1.0, RANGES: -1.0, BEFORE: 0.5, BIAS: 0.75})
    found, weighed = improved(BASE, asked)
    tried = [(one.name, one.helps) for one in weighed]
    assert tried == [(LARGEST, False), (CUT, False), (RANGES, False), (BEFORE, True), (BIAS, True)]
    assert [one.before for one in weighed] == [2.5, 2.5, 2.5, 2.5, 2.0]
    assert {spec.get("clip") for spec in specs(asked.seen[LARGEST]).values() if "method" in spec} == {"low"}
    assert not any("clip" in spec for spec in specs(asked.seen[CUT]).values())
    assert specs(asked.seen[RANGES])["backbone8"]["method"] == "percentile"
    assert specs(asked.seen[RANGES])["act8"]["clip"] == "low"  # a percentile would undo it
    assert specs(asked.seen[BIAS])["backbone8"]["method"] == "mse"  # percentile did not help
    assert found is asked.seen[BIAS]
    assert "through" not in specs(found)["pre8"]
    assert specs(found)["class8"]["through"] == "sigmoid"
    assert yaml.safe_load(found.text)["corrections"] == ["bias_correction"]
    assert found.name == BASE.name
    assert str(weighed[3]) == f"{BEFORE}: 2.5000 -> 2.0000 nats (-20 % ± 0 %)"


# differences of 0.75 +- 1 have a standard deviation of 1.1547 in four images, so a standard error of 0.5774
@pytest.mark.parametrize(("gain", "helps"), [(1.15, False), (1.16, True)])
def test_a_gain_within_two_standard_errors_is_none(gain, helps):
    found, weighed = improved(BASE, Scripted({BIAS: gain}, spread=1.0))
    assert weighed[-1].error == pytest.approx(2 / 3**0.5 / 2)
    assert [one.helps for one in weighed] == [False, False, False, False, helps]
    assert (found is BASE) is not helps


def test_what_a_policy_has_is_not_tried_again():
    content = yaml.safe_load(BASE.text) | {"corrections": [{"bias_correction": {"order": "sequential"}}]}
    for name in ("act8", "pre8", "backbone8", "prebackbone8", "class8"):
        content["specs"][name] = {"observer": "minmax"}
    asked = Scripted({})
    policy = Policy.parse(yaml.safe_dump(content), "mine.yaml")
    assert improved(policy, asked) == (policy, ())
    assert list(asked.seen) == ["the start"]


def test_percentiles_do_not_undo_what_keeps_the_largest():
    asked = Scripted({LARGEST: 0.5})
    found, _ = improved(BASE, asked)
    assert RANGES not in asked.seen
    assert specs(found)["act8"] == {"observer": "histogram", "method": "mse", "clip": "low"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_gives_a_legal_policy(name):
    content = yaml.safe_load(BASE.text)
    CHANGES[name](content)
    assert content != yaml.safe_load(BASE.text)
    Policy.parse(yaml.safe_dump(content), "changed.yaml")
