"""Every code block of the README, the tutorial, the explanations and the reference runs as it stands: the blocks of a
page in order, in one folder. test_how_to_blocks.py runs those of the how-tos, in another process.

The folder holds a small detector and data set. A line that says in a comment that it takes minutes, or needs something
that may not be there, is only read: by the parser of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.blocks import PAGES, blocks
from docs.running import RUN, BlocksRun, named, pages


@pytest.fixture(params=pages(how_to=False), ids=named)
def page(request) -> Path:
    return request.param


class TestOtherPages(BlocksRun):
    pass


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_languages_are_known(page: Path) -> None:
    unknown = [one.where for one in blocks(page) if one.language not in RUN | {"text", "cpp"}]
    assert unknown == [], "a block of another language would not be run"
