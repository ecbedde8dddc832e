"""swap_activation: the shipped example of a custom pass, on traced and fused graphs, and as a detector in a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fxqat
from fxqat.errors import Problem
from fxqat.graph.pipeline import Pipeline
from fxqat.models.activations import ACTIVATIONS
from fxqat.passes.swap_activation import SwapActivation, swap_activation
from fxqat.quant.modules import QATConv2d, QATReLU

KINDS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "hardswish": nn.Hardswish}


def count(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(one, kind) for one in module.modules())


@pytest.mark.parametrize("to", ACTIVATIONS)
def test_a_swapped_detector_is_saved_and_prepared(yolov8n, images, tmp_path, to):
    swapped = swap_activation(yolov8n, to)
    assert not count(swapped, nn.SiLU)
    assert count(yolov8n, nn.SiLU)  # the one given stays as it is
    again = fxqat.load(fxqat.save(swapped, tmp_path / "swapped.fxqat"))
    with torch.no_grad():
        expected = swapped(images)[0]
        assert torch.equal(again(images)[0], expected)
        assert not torch.equal(yolov8n(images)[0], expected)
    assert count(again, KINDS[to])


@pytest.mark.parametrize("to", ACTIVATIONS)
def test_swapping_before_or_after_fusing_is_the_same(yolov8n, images, to):
    after, report = fxqat.prepare(yolov8n, "float", passes=(SwapActivation(to=to),))
    assert report["swap_activation"].report.says == f"57 SiLU are {to} now"
    with torch.no_grad():
        assert torch.equal(after(images)[0], swap_activation(yolov8n, to)(images)[0])
    inside = [one for one in after.modules() if isinstance(one, QATConv2d) and one.activation is not None]
    assert len(inside) == (57 if to == "relu" else 0)
    assert all(isinstance(one.activation, QATReLU) for one in inside)


def test_a_relu_needs_no_quantizer_of_its_own(yolov8n):
    says = [
        fxqat.prepare(one, "w8a8")[1]["insert"].report.says.split(" quantizers")[0]
        for one in (yolov8n, swap_activation(yolov8n, "relu"))
    ]
    # before the SiLU and after its sigmoid: two fewer at each of 57 sites
    assert int(says[0]) - int(says[1]) == 2 * 57


def test_sites_choose(yolov8n):
    gm, report = Pipeline((SwapActivation(to="relu", sites="model.0.**"),)).run(yolov8n.gm)
    assert report["swap_activation"].report.says == "1 SiLU are relu now"
    assert count(gm, nn.ReLU) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": "rleu"}, r"swap_activation: unknown activation 'rleu'; expected one of: relu, .*did you mean 'relu'\?"),
        ({"sites": "modle.0.act"}, r"'modle.0.act' covers no SiLU; did you mean 'model.0.act'\?"),
    ],
)
def test_what_cannot_be_swapped(yolov8n, options, says):
    with pytest.raises(Problem, match=says):
        Pipeline((SwapActivation(**options),)).run(yolov8n.gm)


def test_a_prepared_detector_is_refused(prepared):
    with pytest.raises(Problem, match="is at stage qat; expected stage float to swap activations"):
        swap_activation(prepared, "relu")
