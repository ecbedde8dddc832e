"""The pages hold together: links lead somewhere, every page is in the navigation, lengths are kept, the site builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docs.blocks import PAGES, REPOSITORY

DOCS = REPOSITORY / "docs"
MEASUREMENTS = sorted((REPOSITORY / "bench").glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    found = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        if re.match(r"\w+:", link):
            continue
        generated = "<!-- from" in target.read_text() if target.suffix == ".md" and target.is_file() else True
        if not target.exists() or (anchor and not generated and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:tests|fxqat|bench|patterns|policies)/[\w/]+(?:\.\w+)?)`", page.read_text())
    assert [one for one in named if not (REPOSITORY / one).exists()] == []


@pytest.mark.parametrize("page", MEASUREMENTS, ids=lambda page: page.name)
def test_measurements_say_where_and_when(page: Path) -> None:
    """A page of numbers names the command, the processor and a date."""
    content = page.read_text()
    assert "python -m bench." in content
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", content)
    assert re.search(r"Processor: ", content)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(
        re.findall(r"[\w/.-]+\.md", yaml.safe_dump(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))
    )
    assert listed == {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}


def test_the_readme_is_short() -> None:
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 140] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("no mkdocs: pip install 'fxqat[docs]' builds the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()
