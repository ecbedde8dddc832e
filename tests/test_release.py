"""The release: one version everywhere, and files that name files which are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import fxqat

REPOSITORY = Path(__file__).resolve().parents[1]


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    assert tomllib.loads(text("pyproject.toml"))["project"]["version"] == fxqat.__version__
    assert yaml.safe_load(text("CITATION.cff"))["version"] == fxqat.__version__


def test_the_changelog_tells_of_this_version() -> None:
    dated = re.findall(r"^## \[?([\d.]+)\]? - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE)
    assert dated[0][0] == fxqat.__version__
    assert str(yaml.safe_load(text("CITATION.cff"))["date-released"]) == dated[0][1]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_is_named_is_there(name: str) -> None:
    paths = re.findall(r"`((?:fxqat|tests|bench|patterns|policies)(?:/[\w.*]+)+)`", text(name))
    paths += [link for link in re.findall(r"\]\(([^)]+)\)", text(name)) if "://" not in link]
    assert [path for path in paths if not list(REPOSITORY.glob(path))] == []


def test_the_source_distribution_has_all_that_its_files_name() -> None:
    included = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in included if not (REPOSITORY / name).exists()] == []
    assert {"CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "policies", "patterns"} <= set(included)
