"""Conformance of models of other tasks: a file for each process that runs tests."""

from __future__ import annotations

import pytest
from conformance import TASKS, Conformance, Made, make


@pytest.fixture(scope="module", params=TASKS)
def made(request, images, tmp_path_factory) -> Made:
    return make(request.param, images, tmp_path_factory.mktemp(request.param))


class TestOtherTasks(Conformance):
    pass
