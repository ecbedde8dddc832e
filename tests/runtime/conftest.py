"""What tests of this room share: one export, since tracing the integer graph to ONNX takes most of their time, and a
small detector with each kind of operation once, whose exports take a third of YOLOv8n's."""

from __future__ import annotations

import pytest
from alive import alive
from small_networks import write

import fxqat


@pytest.fixture(scope="session")
def exported(converted, tmp_path_factory):
    """``converted`` as an ONNX file for one image of 64 x 64."""
    return fxqat.export(converted, tmp_path_factory.mktemp("onnx") / "yolov8n_int8.onnx", imgsz=64)


@pytest.fixture(scope="session")
def small(tmp_path_factory, images):
    """The small detector, float, with random weights and real statistics."""
    return alive(fxqat.load(write(tmp_path_factory.mktemp("small"), "yolov8n")), images)


@pytest.fixture(scope="session")
def small_int8(small, images):
    """``small`` under w8a8, calibrated on ``images``, as the INT8 reference graph; read only."""
    return fxqat.convert(fxqat.calibrate(fxqat.prepare(small, "w8a8")[0], [images]))[0]
