"""Exact integer execution: sums that no rounding touches, and the quick way to the same codes."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import fx

import fxqat
from fxqat.evaluation.comparison import open_model
from fxqat.models.detector import cut
from fxqat.quant import ort_kernels
from fxqat.quant.torch_ao import dequantize_per_tensor, quantize_per_tensor
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.runtime.integer_model import executed

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
    found = ort_kernels.exact_conv(
        torch.from_numpy(codes).float(),
        torch.from_numpy(weight).to(torch.int8),
        torch.from_numpy(added).to(torch.int32),
        GEOMETRY,
    )
    wanted = np.einsum("nchw,oc->nohw", codes, weight[:, :, 0, 0]) + added[:, None, None]
    assert np.array_equal(found.double().numpy(), wanted)


@pytest.mark.parametrize(("policy", "target"), [("w8a8", "ort-cpu"), ("critical", "ort-arm")])
def test_the_quick_way_gives_the_same_bits_and_lets_tensors_go(yolov8n, images, policy, target):
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, policy, target=target)[0], [images])
    gm = cut(fxqat.convert(qat)[0].gm, 0).eval()
    whole = IntegerExecution(gm)
    quick = executed(qat)
    assert quick is not None
    output = quick.run(images)
    assert torch.equal(output, whole.run(images))
    assert len(whole.codes) == sum(node.target is quantize_per_tensor for node in gm.graph.nodes)
    left = [value for value in quick.env.values() if isinstance(value, torch.Tensor) and value is not output]
    assert (left, quick.codes) == ([], {})
    assert len(quick._silus) == 57


def test_a_run_goes_on_from_the_integers_given(calibrated, images):
    """Each tensor is computed from what another run has before it: of other images, everything but the images is as in
    that run."""
    gm = cut(fxqat.convert(calibrated)[0].gm, 0).eval()
    other, mine = IntegerExecution(gm), IntegerExecution(gm)
    other.run(images[1:2])
    mine.run(images[:1])
    led = IntegerExecution(gm, given=other.codes)
    led.run(images[:1])
    differing = [site for site, codes in led.codes.items() if not torch.equal(codes, other.codes[site])]
    assert differing == ["images.codes"]
    assert torch.equal(led.codes["images.codes"], mine.codes["images.codes"])


def test_integers_of_another_shape_are_left_aside(calibrated, images):
    gm = cut(fxqat.convert(calibrated)[0].gm, 0).eval()
    led = IntegerExecution(gm, given={"images.codes": torch.zeros(1, 3, 32, 64, dtype=torch.uint8)})
    alone = IntegerExecution(gm)
    led.run(images[:1])
    alone.run(images[:1])
    assert all(torch.equal(codes, alone.codes[site]) for site, codes in led.codes.items())


@pytest.mark.parametrize("reader", ["codes", "values"])
def test_a_gate_that_something_else_reads_is_computed(reader):
    graph = fx.Graph()

    def coded(value, scale, zero_point):
        codes = graph.call_function(quantize_per_tensor, (value, scale, zero_point, 0, 255, torch.uint8))
        return codes, graph.call_function(dequantize_per_tensor, (codes, scale, zero_point, 0, 255, torch.uint8))

    _, x = coded(graph.placeholder("x"), 0.05, 100)
    gate, gate_values = coded(graph.call_function(torch.sigmoid, (x,)), 1 / 256, 0)
    _, y = coded(graph.call_function(operator.mul, (x, gate_values)), 0.04, 7)
    graph.output((y, gate if reader == "codes" else gate_values))
    gm = fx.GraphModule(torch.nn.Module(), graph)
    x = torch.linspace(-6, 8, 500)
    quick = IntegerExecution(gm, keep=False)
    assert len(quick._silus) == 1
    for found, wanted in zip(quick.run(x), IntegerExecution(gm).run(x), strict=True):
        assert torch.equal(found, wanted)


def test_a_saved_model_predicts_what_its_integers_give(yolov8n, images, tmp_path):
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images])
    fxqat.save(qat, tmp_path / "qat.fxqat")
    wanted = executed(qat)
    assert wanted is not None
    found = open_model(tmp_path / "qat.fxqat").predict(images)
    assert torch.equal(found, wanted.run(images))
    assert not torch.equal(found, qat(images)[0])


def test_where_the_arithmetic_is_not_known(yolov8n, images):
    assert executed(yolov8n) is None
    other = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8", target="openvino")[0], [images])
    assert executed(other) is None
