"""Every code block of the README, the tutorial, the explanations and the reference runs as it stands: the blocks of a
page in order, in one folder. test_how_to_blocks.py runs those of the how-tos, in another process.

The folder holds a small detector and data set. A line that says in a comment that it takes minutes, or needs something
that may not be there, is only read: by the parser of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.blocks import PAGES, REPOSITORY, blocks
from docs.running import RUN, run_page

OTHERS = [page for page in PAGES if page.parent.name != "how-to" and any(one.language in RUN for one in blocks(page))]


@pytest.mark.usefixtures("quick_timing", "few_images", "few_resamples", "registries")
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of_a_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, shown = run_page(page, folder, monkeypatch)
    assert {one.where: one.code for one in ran if one.code != 0} == {}
    assert {one.where: one.unwritten for one in ran if one.unwritten} == {}
    assert {one.where: one.words - one.printed for one in shown if one.words - one.printed} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_languages_are_known(page: Path) -> None:
    unknown = [one.where for one in blocks(page) if one.language not in RUN | {"text", "cpp"}]
    assert unknown == [], "a block of another language would not be run"
