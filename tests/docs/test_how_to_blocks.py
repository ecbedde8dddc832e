"""Every code block of the how-tos runs as it stands, as test_blocks.py says."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.blocks import PAGES, REPOSITORY, blocks
from docs.running import RUN, run_page

HOW_TO = [page for page in PAGES if page.parent.name == "how-to" and any(one.language in RUN for one in blocks(page))]


@pytest.mark.usefixtures("quick_timing", "few_images", "few_resamples", "registries")
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_blocks_of_a_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, shown = run_page(page, folder, monkeypatch)
    assert {one.where: one.code for one in ran if one.code != 0} == {}
    assert {one.where: one.unwritten for one in ran if one.unwritten} == {}
    assert {one.where: one.words - one.printed for one in shown if one.words - one.printed} == {}
