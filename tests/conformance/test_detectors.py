"""Conformance of detectors: a file for each process that runs tests."""

from __future__ import annotations

import pytest
from conformance import FAMILIES, WHOLE, Conformance, Made, make


@pytest.fixture(scope="module", params=[*FAMILIES, WHOLE])
def made(request, images, tmp_path_factory) -> Made:
    return make(request.param, images, tmp_path_factory.mktemp(request.param))


class TestDetectors(Conformance):
    pass
