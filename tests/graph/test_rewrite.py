"""Rules and edits: what they put in, what they take out, and that a refusal leaves no trace."""

from __future__ import annotations

import operator

import pytest
import torch
from graph.asking import Residual, applying, ask, distance, noise, traced
from torch import nn

from fxqat.graph.info import NodeInfo, info_of, note
from fxqat.graph.match import NoMatch, function, method, module, one_of, value
from fxqat.graph.rewrite import rewrite, rule
from fxqat.graph.site import module_of, site_of
from fxqat.graph.text import text

x = value("x")


@rule(module(nn.SiLU, x, name="act"))
def silu_to_relu(edit, x, act):
    """Every SiLU becomes a ReLU."""
    return edit.call(nn.ReLU(), x, at=act)


@rule(module(nn.SiLU, x, name="act"))
def silu_spelled_out(edit, x, act):
    gate = edit.function(torch.sigmoid, x, at=f"{site_of(act)}.sigmoid")
    return edit.function(operator.mul, x, gate, at=act)


@rule(module(nn.BatchNorm2d, module(nn.Conv2d, x, name="conv"), name="bn"))
def drop_bn(edit, x, conv, bn):
    return conv


def test_a_rule_is_a_value_that_knows_where_it_stands():
    assert silu_to_relu.name == "silu_to_relu"
    assert silu_to_relu.doc == "Every SiLU becomes a ReLU."
    assert silu_to_relu.source.startswith("test_rewrite.py:")


def test_an_equivalence_answers_the_three_questions(golden):
    # x * sigmoid(x) and torch's SiLU differ by the rounding of two operations: 2 ulp of values below 8, 2 * 2**-21.
    gm = traced(Residual())
    changed, said = ask(
        gm,
        applying(silu_spelled_out),
        noise(2, 4, 8, 8),
        within=2 * 2**-21,
        golden=lambda t: golden("silu_spelled_out", t),
    )
    assert [(one.rule, one.site) for one in said.applied] == [("silu_spelled_out", "act")]
    assert not any(isinstance(m, nn.SiLU) for m in changed.modules()), "a module that nothing calls is gone"


def test_the_new_node_takes_the_site_the_users_and_the_metadata():
    gm = traced(Residual())
    act = next(n for n in gm.graph.nodes if site_of(n) == "act")
    note(act, roles=("first",), rule="older")
    rewrite(gm, [silu_to_relu])
    relu = next(n for n in gm.graph.nodes if site_of(n) == "act")
    assert isinstance(module_of(relu), nn.ReLU)
    assert [site_of(user) for user in relu.users] == ["add"]
    assert info_of(relu) == NodeInfo(site="act", roles=("first",), rule="silu_to_relu")


def test_a_refusal_leaves_the_graph_and_the_displaced_module_as_they_were():
    @rule(module(nn.SiLU, module(nn.BatchNorm2d, x, name="bn"), name="act"))
    def refuses(edit, x, bn, act):
        edit.call(nn.ReLU(), x, at=bn)
        edit.call(nn.ReLU(), edit.call(nn.Tanh(), x, at=act), at=act)
        edit.function(torch.exp, x, at="new")
        raise NoMatch("after all not", bn)

    root = Residual()
    gm, inputs = traced(root), noise(1, 4, 8, 8)
    before, wanted = text(gm.graph), gm(inputs)
    done = rewrite(gm, [refuses])
    assert text(gm.graph) == before
    assert gm.bn is root.bn
    assert gm.act is root.act
    assert torch.equal(gm(inputs), wanted)
    (missed,) = done.missed
    assert (missed.rule, missed.site, missed.where, missed.reason, missed.depth) == (
        "refuses",
        "act",
        "bn",
        "after all not",
        2,
    )


def test_a_refusal_takes_new_modules_and_buffers_back():
    @rule(module(nn.SiLU, x, name="act"))
    def refuses(edit, x, act):
        edit.function(torch.add, x, edit.attribute("folder.offset", torch.ones(1)), at="new")
        edit.call(nn.Linear(2, 2), x, at="other")
        raise NoMatch("after all not", act)

    gm = traced(Residual())
    names = [name for name, _ in gm.named_modules()], list(gm.state_dict())
    for node in list(gm.graph.nodes):
        if site_of(node) == "act":
            with pytest.raises(NoMatch, match="after all not"):
                refuses.apply(gm, node)
    assert ([name for name, _ in gm.named_modules()], list(gm.state_dict())) == names


def test_a_miss_at_the_last_operation_is_kept_and_others_are_not():
    gm = traced(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm2d(4), nn.SiLU()))
    done = rewrite(gm, [drop_bn])
    assert [(m.site, m.where, m.reason, m.depth) for m in done.missed] == [("1", "0", "is Linear, not Conv2d", 1)]
    assert done.applied == ()


def test_a_rule_may_return_a_node_that_was_there():
    gm = traced(Residual())
    done = rewrite(gm, [drop_bn])
    assert done.count("drop_bn") == 1
    assert [site_of(n) for n in gm.graph.nodes] == ["x", "conv", "act", "add", "output"]
    assert distance(gm(noise(1, 4, 4, 4)), gm.act(gm.conv(noise(1, 4, 4, 4))) + noise(1, 4, 4, 4)) == 0


def test_what_a_match_uses_elsewhere_stays():
    @rule(method("exp", value("x"), name="e"))
    def exp_as_function(edit, x, e):
        return edit.function(torch.exp, x, at=e)

    class Twice(nn.Module):
        def forward(self, x):
            y = x.abs()
            return y.exp() + y

    gm = traced(Twice())
    rewrite(gm, [exp_as_function])
    assert torch.equal(gm(torch.ones(2)), torch.ones(2).exp() + 1)


def test_rules_apply_in_the_order_of_the_list():
    @rule(one_of(module(nn.SiLU), module(nn.ReLU), name="act"))
    def to_identity(edit, act):
        return edit.call(nn.Identity(), act.args[0], at=act)

    first, second = traced(Residual()), traced(Residual())
    done = rewrite(first, [silu_to_relu, to_identity]), rewrite(second, [to_identity, silu_to_relu])
    assert [[one.rule for one in each.applied] for each in done] == [["silu_to_relu", "to_identity"], ["to_identity"]]
    assert text(first.graph) == text(second.graph)


def test_attributes_are_buffers_that_the_graph_reads():
    @rule(function(operator.add, value("a"), value("b"), name="sum"))
    def plus_one(edit, a, b, sum):
        one = edit.attribute("constants.one", torch.ones(1))
        assert torch.equal(edit.tensor(one), torch.ones(1))
        return edit.function(torch.add, edit.function(torch.add, a, b, at=sum), one, at="plus_one")

    gm, inputs = traced(Residual()), noise(1, 4, 4, 4)
    wanted = gm(inputs) + 1
    rewrite(gm, [plus_one])
    assert torch.equal(gm(inputs), wanted)
    assert "constants.one" in gm.state_dict()


@rule(module(nn.SiLU, x, name="act"))
def silu_to_relu_and_scale(edit, x, act):
    return edit.call(nn.Dropout(0.0), edit.call(nn.ReLU(), x, at=act), at=f"{site_of(act)}.drop")


@rule(module(nn.ReLU, x, name="act"))
def relu_to_hardswish(edit, x, act):
    return edit.call(nn.Hardswish(), x, at=act)


def test_what_is_called_below_a_path_stays_when_its_module_is_replaced():
    gm = traced(nn.Sequential(nn.SiLU()))
    for one in (silu_to_relu_and_scale, relu_to_hardswish):
        rewrite(gm, (one,))
        gm.recompile()
    assert [type(module_of(node)) for node in gm.graph.nodes if node.op == "call_module"] == [nn.Hardswish, nn.Dropout]
    given = noise(2, 4)
    assert torch.equal(gm.eval()(given), nn.functional.hardswish(given))
