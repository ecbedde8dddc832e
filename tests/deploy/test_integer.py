"""Exact integer execution: sums that no rounding touches, and the quick way to the same codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import fxqat
from fxqat.deploy.executed import executed
from fxqat.deploy.integer import IntegerExecution, _exact_conv
from fxqat.passes import Rules
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.yolo.detector import cut

GEOMETRY = ((1, 1), (0, 0), (1, 1), 1)


@given(st.integers(1, 4200), st.integers(0, 2**20), st.integers(0, 1000))
@example(515, 0, 0)  # 255 * 127 * 515 < 2**24 < 255 * 127 * 519: one float32 sum is just exact
@example(519, 0, 0)
@example(515, 10**6, 0)  # with the bias it is no longer
@example(8300, 0, 0)  # halves of the codes are just too large
@example(8200, 0, 0)
def test_sums_are_exact(inputs: int, bias: int, seed: int) -> None:
    """Every code and weight at its end, and a few anywhere: the largest sums there are."""
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random((1, inputs, 2, 1)) < 0.9, 255, rng.integers(-255, 256, (1, inputs, 2, 1)))
    weight = np.where(rng.random((3, inputs, 1, 1)) < 0.9, 127, rng.integers(-128, 128, (3, inputs, 1, 1)))
    added = np.array([bias, -bias, 1])
    found = _exact_conv(
        torch.from_numpy(codes).float(),
        torch.from_numpy(weight).to(torch.int8),
        torch.from_numpy(added).to(torch.int32),
        GEOMETRY,
    )
    wanted = np.einsum("nchw,oc->nohw", codes, weight[:, :, 0, 0]) + added[:, None, None]
    assert np.array_equal(found.double().numpy(), wanted)


@pytest.mark.parametrize(("policy", "target"), [("yolov8_w8a8", "ort-cpu"), ("yolov8_critical", "ort-arm")])
def test_the_quick_way_gives_the_same_bits_and_lets_tensors_go(yolov8n, images, policy, target):
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, policy, target=target)[0], [images])
    gm = cut(fxqat.convert(qat)[0].gm, 0).eval()
    whole = IntegerExecution(gm)
    quick = executed(qat, Rules.load())
    assert quick is not None
    output = quick.run(images)
    assert torch.equal(output, whole.run(images))
    assert len(whole.codes) == sum(node.target is quantize_per_tensor for node in gm.graph.nodes)
    left = [value for value in quick.env.values() if isinstance(value, torch.Tensor) and value is not output]
    assert (left, quick.codes) == ([], {})
    assert len(quick._silus) == 57


def test_where_the_arithmetic_is_not_known(yolov8n, images):
    assert executed(yolov8n, Rules.load()) is None
    other = fxqat.calibrate(fxqat.prepare(yolov8n, "yolov8_w8a8", target="openvino")[0], [images])
    assert executed(other, Rules.load()) is None
