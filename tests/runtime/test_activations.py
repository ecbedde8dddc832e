"""Every activation of the vocabulary in a whole network: the exported file has the codes of the integers."""

from __future__ import annotations

import pytest

import fxqat
from fxqat.models.activations import ACTIVATIONS
from fxqat.passes.swap_activation import swap_activation
from fxqat.runtime.reference.int8_summary import account


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "silu"])
def test_the_runtime_computes_the_codes_of_every_activation(small, images, tmp_path, activation):
    qat = fxqat.calibrate(fxqat.prepare(swap_activation(small, activation), "w8a8")[0], [images])
    int8, _ = fxqat.convert(qat)
    assert account(int8.gm).integer == account(int8.gm).layers
    path = fxqat.export(int8, tmp_path / "x.onnx", imgsz=64)
    found = fxqat.verify(qat, path, [images[:1], images[1:2]], imgsz=64)
    assert found.total("reference_runtime").differing == 0, found.first("reference_runtime")
