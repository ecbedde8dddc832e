"""Every code block of the how-tos runs as it stands, as test_blocks.py says."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.running import BlocksRun, named, pages


@pytest.fixture(params=pages(how_to=True), ids=named)
def page(request) -> Path:
    return request.param


class TestHowTos(BlocksRun):
    pass
