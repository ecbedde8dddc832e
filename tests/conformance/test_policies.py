"""Conformance: every shipped policy is legal for every family."""

from __future__ import annotations

import pytest
from conformance import FAMILIES, TASKS

import fxqat
from fxqat.policy import Policy

POLICIES = ("critical", "w8a8", "w4a8")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", [*FAMILIES, *TASKS])
def test_every_shipped_policy_is_legal_for_every_family(name, policy, fused):
    for target in ("ort-cpu", "openvino"):
        decisions = Policy.load(policy, target=target).assign(fused(name))
        assert any(not decision.qconfig.is_float for decision in decisions.values())


@pytest.fixture(scope="module")
def fused():
    from fxqat.passes import Rules, fusing, sites

    made = {}

    def sites_of(name):
        if name not in made:
            made[name] = sites(fusing(Rules.load()).run(fxqat.load(f"{name}.yaml").gm)[0])
        return made[name]

    return sites_of
