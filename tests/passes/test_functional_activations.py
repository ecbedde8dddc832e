"""Activations that a model computes by functions become modules, which rules and targets know."""

from __future__ import annotations

import pytest
import torch
from graph.asking import traced
from torch import nn
from torch.nn import functional as F

from fxqat.graph.pipeline import Pipeline
from fxqat.graph.site import module_of
from fxqat.passes.canonicalize import Canonicalize

FORMS = {
    "F.relu": (F.relu, nn.ReLU()),
    "in place": (lambda x: F.relu(x, inplace=True), nn.ReLU()),
    "in place by position": (lambda x: F.relu(x, True), nn.ReLU()),
    "torch.relu": (torch.relu, nn.ReLU()),
    "x.relu()": (lambda x: x.relu(), nn.ReLU()),
    "F.silu": (F.silu, nn.SiLU()),
    "F.leaky_relu": (F.leaky_relu, nn.LeakyReLU(0.01)),
    "slope by position": (lambda x: F.leaky_relu(x, 0.2), nn.LeakyReLU(0.2)),
    "slope by name": (lambda x: F.leaky_relu(x, negative_slope=0.3, inplace=True), nn.LeakyReLU(0.3)),
    "F.hardswish": (F.hardswish, nn.Hardswish()),
}


class Net(nn.Module):
    """A convolution, an activation, and where ``twice`` the convolution's result added to it."""

    def __init__(self, activation, twice=False):
        super().__init__()
        self.conv, self.activation, self.twice = nn.Conv2d(3, 4, 3), activation, twice

    def forward(self, x):
        y = self.conv(x)
        z = self.activation(y)
        return z + y if self.twice else z


def canonical(net):
    return Pipeline((Canonicalize(),)).run(traced(net))[0]


@pytest.mark.parametrize(("function", "module"), FORMS.values(), ids=FORMS)
def test_a_function_is_the_module_that_computes_the_same(function, module):
    net, x = Net(function), torch.randn(2, 3, 8, 8)
    gm = canonical(net)
    (last,) = (node for node in gm.graph.nodes if node.op == "call_module" and node.name != "conv")
    assert repr(module_of(last)) == repr(module)
    assert torch.equal(gm(x), net(x))


def test_what_is_written_over_and_read_again_stays_a_function():
    gm = canonical(Net(lambda x: F.relu(x, inplace=True), twice=True))
    assert next(node.target for node in gm.graph.nodes if node.op == "call_function") is F.relu


def test_what_is_read_again_unchanged_becomes_a_module():
    gm = canonical(Net(F.relu, twice=True))
    assert [type(module_of(node)) for node in gm.graph.nodes if node.op == "call_module"] == [nn.Conv2d, nn.ReLU]
