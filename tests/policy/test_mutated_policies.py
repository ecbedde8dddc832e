"""Policies that somebody changed: a sample of ``python -m bench.mutated_policies``, and the ways that it found."""

from __future__ import annotations

import pytest
from refusals import refusal

from bench.mutated_policies import CHANGES, trials
from fxqat.policy import Policy

COUNT = 60


def test_changed_policies_decide_or_are_refused_in_one_line():
    counts = trials(COUNT, seed=3)
    assert set(counts) == set(CHANGES)
    assert sum(sum(row.values()) for row in counts.values()) == COUNT
    assert not sum(row["wrong"] for row in counts.values())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\ndoc: \x00\n", "p.yaml:2: is not YAML (the character 0x0); expected a policy file"),
        ("version: 2026-13-45\n", "p.yaml: is not YAML (month must be in 1..12); expected a policy file"),
        (
            "version: 1\ntarget: ort-cpu\nrules:\n- {site: a, activation: []}\n",
            "p.yaml:4: unknown spec []; expected one of: none",
        ),
        ("version: 1\nextends: " + "x" * 5000, "p.yaml:2: extends "),
    ],
)
def test_what_the_trials_found(text, line):
    assert refusal(Policy.parse, text, "p.yaml").startswith(line)
