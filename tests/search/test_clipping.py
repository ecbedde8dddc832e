"""bench.clipping: which quantizers a group holds, that keeping moves the upper end alone, and that it is undone."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.clipping import GROUPS, choosing, let, main, members
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.spec import CLIPS


@pytest.fixture(scope="module")
def free(calibrated):
    return choosing(QuantGraph(copy.deepcopy(calibrated).gm).quantizers())


def test_groups_of_yolov8(free):
    held = {name: set(members(name, free)) for name in GROUPS}
    assert held["all"] == set(free)
    assert held["class branches"] < held["class and box branches"] < held["neck and head"] < held["layers 5 and later"]
    assert held["layers 0 to 4"] == held["all"] - held["layers 5 and later"]
    assert not [site for site in free if site.endswith(("cv2.0.2", "cv3.0.2"))], "logits have a range of their own"


def test_keeping_moves_the_upper_end_to_the_largest_value_and_cutting_brings_it_back(free):
    fakes = free.values()
    let(fakes, "both")
    cut = [fake.qparams() for fake in fakes]
    let(fakes, "low")
    for fake in fakes:
        largest = fake.activation_post_process.high
        scale, zero = fake.scale, fake.zero_point
        # the grid ends at a whole number of steps from zero: half a step from what was asked for
        assert ((fake.quant_max - zero) * scale >= largest - scale / 2).all()
    let(fakes, "both")
    assert all(torch.equal(fake.scale, old.scale) for fake, old in zip(fakes, cut, strict=True))
    assert set(CLIPS) == {"both", "low"}, "a new way to cut needs its row in the study"


def test_an_unknown_policy_is_one_line(capsys, tiny_data):
    options = ["--weights", "yolov8n.yaml", "--train", str(tiny_data), "--data", str(tiny_data)]
    assert main([*options, "--policy", "no"]) == 2
    assert capsys.readouterr().err == ("no: no such file; expected a path or one of: critical, float, w4a8, w8a8\n")
