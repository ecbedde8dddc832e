"""One export for all tests of this room: tracing the integer graph to ONNX takes most of their time."""

from __future__ import annotations

import pytest

import fxqat


@pytest.fixture(scope="session")
def exported(converted, tmp_path_factory):
    """``converted`` as an ONNX file for one image of 64 x 64."""
    return fxqat.export(converted, tmp_path_factory.mktemp("onnx") / "yolov8n_int8.onnx", imgsz=64)
