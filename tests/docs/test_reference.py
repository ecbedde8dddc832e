"""The reference says all that the code has: every section is made, used, and complete."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

import pytest
import yaml
from docs.blocks import PAGES, REPOSITORY

from fxqat.commands.parser import COMMANDS
from fxqat.policy.reader import POLICY_KEYS, RULE_KEYS
from fxqat.quant.spec import QuantSpec
from fxqat.targets import TARGETS
from fxqat.training.config import TrainingConfig
from fxqat.training.losses import LossConfig

sys.path.append(str(REPOSITORY / "docs" / "hooks"))

from sections import SECTIONS

MARKER = re.compile(r"^<!-- from code: (\S+) -->$", re.MULTILINE)


def first_cells(section: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", SECTIONS[section](), re.MULTILINE))


def test_every_section_stands_on_a_page() -> None:
    assert sorted(name for page in PAGES for name in MARKER.findall(page.read_text())) == sorted(SECTIONS)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_no_cell_is_without_a_meaning(name: str) -> None:
    rows = [line for line in SECTIONS[name]().splitlines() if line.startswith("| `")]
    assert [row for row in rows if not row.split(" | ")[1].strip(" |")] == []


def test_the_tables_have_every_name() -> None:
    assert first_cells("targets") == set(TARGETS)
    assert first_cells("policy-keys") == {*POLICY_KEYS, *RULE_KEYS}
    assert first_cells("spec-fields") == {one.name for one in fields(QuantSpec)}


def test_every_command_has_a_heading_and_an_example() -> None:
    text = SECTIONS["command-line"]()
    assert re.findall(r"^### (\S+)$", text, re.MULTILINE) == [one.name for one in COMMANDS]
    assert [one.name for one in COMMANDS if f"```shell\nfxqat {one.name}" not in text] == []


def cells(section: str) -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", SECTIONS[section](), re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in rows}


@pytest.mark.parametrize(
    ("section", "kind"),
    [("spec-fields", QuantSpec), ("training-options", TrainingConfig), ("loss-options", LossConfig)],
)
def test_a_default_is_a_literal_of_its_own_type(section: str, kind: type) -> None:
    defaults = {one.name: one.default for one in fields(kind)}
    for name, (shown, *_) in cells(section).items():
        if isinstance(defaults[name], (bool, int, float)):
            assert yaml.safe_load(shown.strip("`")) == defaults[name], name
            assert isinstance(yaml.safe_load(shown.strip("`")), bool) == isinstance(defaults[name], bool), name


def test_a_correction_is_told_in_whole_sentences() -> None:
    for name, (told, _) in cells("corrections").items():
        assert told.count("(") == told.count(")"), name
