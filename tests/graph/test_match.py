"""The matcher: what it binds, and each of the ways in which it says no."""

from __future__ import annotations

import operator

import pytest
import torch
from graph.asking import Residual, traced
from torch import nn

from fxqat.graph.match import NoMatch, function, match, method, module, one_of, value
from fxqat.graph.site import site_of

x = value("x")
conv = module(nn.Conv2d, x, name="conv")
bn = module(nn.BatchNorm2d, conv, name="bn")
silu = module(nn.SiLU, bn, name="act")


def node(gm, site):
    return next(one for one in gm.graph.nodes if site_of(one) == site)


def miss(pattern, root) -> NoMatch:
    with pytest.raises(NoMatch) as caught:
        match(pattern, root)
    return caught.value


class Function(nn.Module):
    """A module whose forward is the given function."""

    def __init__(self, forward, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def test_names_are_bound_and_inside_ends_with_the_root():
    gm = traced(Residual())
    found = match(silu, node(gm, "act"))
    assert {name: site_of(one) for name, one in found.named.items()} == {
        "x": "x",
        "conv": "conv",
        "bn": "bn",
        "act": "act",
    }
    assert [site_of(one) for one in found.inside] == ["conv", "bn", "act"]
    assert found.root is found["act"]


def test_a_module_is_found_by_class_and_by_subclass():
    gm = traced(nn.Sequential(nn.BatchNorm2d(1)))
    assert match(module(nn.modules.batchnorm._BatchNorm, x, name="bn"), node(gm, "0"))
    assert match(module((nn.Conv2d, nn.BatchNorm2d), x, name="bn"), node(gm, "0"))
    assert (
        miss(module((nn.Conv2d, nn.BatchNorm1d)), node(gm, "0")).reason == "is BatchNorm2d, not Conv2d or BatchNorm1d"
    )


@pytest.mark.parametrize(
    ("root", "where", "reason", "depth"),
    [
        ("x", "x", "is placeholder, not SiLU", 0),
        ("conv", "conv", "is Conv2d, not SiLU", 0),
        ("add", "add", "is add, not SiLU", 0),
        ("output", "output", "is output, not SiLU", 0),
    ],
)
def test_another_operation(root, where, reason, depth):
    caught = miss(silu, node(traced(Residual()), root))
    assert (site_of(caught.node), caught.reason, caught.depth) == (where, reason, depth)
    assert str(caught) == f"{where}: {reason}"


def test_a_near_miss_knows_how_deep_it_was_and_where_it_ended():
    gm = traced(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm2d(4), nn.SiLU()))
    caught = miss(silu, node(gm, "2"))
    assert (site_of(caught.node), caught.reason, caught.depth) == ("0", "is Linear, not Conv2d", 2)


def test_a_value_in_the_middle_that_is_used_elsewhere_is_refused():
    gm = traced(
        Function(
            lambda self, x: self.act(self.conv(x)) + self.conv.weight.sum() + self.conv(x),
            conv=nn.Conv2d(1, 1, 1),
            act=nn.SiLU(),
        )
    )
    assert match(module(nn.SiLU, conv), node(gm, "act"))

    def forked(self, x):
        y = self.conv(x)
        return self.act(y) * y

    gm = traced(Function(forked, conv=nn.Conv2d(1, 1, 1), act=nn.SiLU()))
    caught = miss(module(nn.SiLU, conv), node(gm, "act"))
    assert (site_of(caught.node), caught.reason, caught.depth) == ("conv", "is also used by mul", 2)


def test_a_value_in_the_middle_may_be_used_twice_inside():
    def squared(self, x):
        y = x.exp()
        return y * y

    gm = traced(Function(squared))
    inner = method("exp", x, name="e")
    assert match(function(operator.mul, inner, inner), node(gm, "mul"))["e"].target == "exp"


def test_the_edge_of_a_pattern_may_be_used_elsewhere():
    assert match(silu, node(traced(Residual()), "act"))["x"].op == "placeholder"


def test_one_name_is_one_node():
    gm = traced(Function(lambda self, x: x * x.exp()))
    swish = function(operator.mul, x, method("exp", x))
    assert match(swish, node(gm, "mul"))

    gm = traced(Function(lambda self, x: x * x.abs().exp()))
    caught = miss(swish, node(gm, "mul"))
    assert (site_of(caught.node), caught.reason) == ("abs", "'x' is x elsewhere in the pattern")


def test_the_count_of_inputs_must_agree():
    gm = traced(Function(lambda self, x: torch.add(x, 1)))
    caught = miss(function(torch.add, x, value()), node(gm, "add"))
    assert (caught.reason, caught.depth) == ("has 1 inputs, the pattern has 2", 1)
    assert match(function(torch.add), node(gm, "add")), "no inputs given leaves them open"


def test_inputs_by_keyword_count():
    gm = traced(Function(lambda self, x: torch.add(x, other=x.exp())))
    assert match(function(torch.add, x, method("exp", x)), node(gm, "add"))


def test_one_of_takes_the_first_that_fits_and_forgets_the_others():
    gm = traced(Residual())
    either = one_of(module(nn.SiLU, module(nn.Conv2d, value("wrong"))), module(nn.SiLU, bn), name="act")
    found = match(either, node(gm, "act"))
    assert set(found.named) == {"act", "bn", "conv", "x"}
    assert [site_of(one) for one in found.inside] == ["conv", "bn", "act"]


def test_one_of_reports_its_deepest_miss():
    gm = traced(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm2d(4), nn.SiLU()))
    caught = miss(one_of(module(nn.SiLU, conv), silu), node(gm, "2"))
    assert (site_of(caught.node), caught.reason) == ("0", "is Linear, not Conv2d")
    assert caught.depth == 2
    assert miss(one_of(conv, bn), node(gm, "2")).reason == "is SiLU, not Conv2d or BatchNorm2d"


def test_functions_and_methods_are_told_apart():
    gm = traced(Function(lambda self, x: torch.exp(x).exp()))
    assert match(method("exp", function(torch.exp, x)), node(gm, "exp_1"))
    assert miss(function(torch.exp, x), node(gm, "exp_1")).reason == "is exp, not exp"
