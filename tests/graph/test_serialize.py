"""Graphs as plain data: what comes back is what was written, and data that is none of ours is refused with a reason."""

from __future__ import annotations

import copy
import json
import math
import operator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from fxqat.graph.deserialize import Unreadable, build
from fxqat.graph.info import info_of, note
from fxqat.graph.literals import decode, encode
from fxqat.graph.serialize import Unwritable, write
from fxqat.graph.site import assign_sites
from fxqat.graph.text import text
from fxqat.graph.vocabulary import ModuleWord, Vocabulary, told_by

WORDS = Vocabulary(
    modules={
        "Linear": ModuleWord(
            kind=nn.Linear,
            read=lambda one: {
                "in_features": one.in_features,
                "out_features": one.out_features,
                "bias": one.bias is not None,
            },
            build=nn.Linear,
        ),
        "ReLU": told_by(nn.ReLU, ("inplace",)),
        "BatchNorm1d": told_by(nn.BatchNorm1d, ("num_features", "eps", "momentum", "affine"), device="meta"),
    },
    functions={"operator.add": operator.add, "torch.cat": torch.cat, "getattr": getattr},
    methods=frozenset({"view", "size"}),
    attributes=frozenset({"shape"}),
)


def no_node(value):
    raise TypeError(f"a constant of type {type(value).__name__}")


plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
special = st.sampled_from([torch.int8, torch.float32, torch.uint16, torch.channels_last, ..., slice(None, 3)])
constants = st.recursive(
    plain | special,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(constants)
def test_constants_come_back_with_their_types(value):
    back = decode(json.loads(json.dumps(encode(value, no_node))), no_node)
    assert back == value
    assert repr(back) == repr(value)


def test_numbers_that_json_has_no_word_for():
    assert decode(encode(torch.Size([2, 3]), no_node), no_node) == (2, 3)
    data = json.loads(json.dumps([encode(value, no_node) for value in (math.inf, -math.inf, math.nan, -0.0)]))
    back = [decode(one, no_node) for one in data]
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])
    assert math.copysign(1, back[3]) == -1


@given(st.recursive(plain, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8))
def test_any_json_is_a_constant_or_is_refused(data):
    try:
        decode(data, no_node)
    except (ValueError, TypeError):
        return
    assert not isinstance(data, dict) or len(data) == 1


@pytest.mark.parametrize("value", [torch.ones(1), object(), {1: 2}, 1j, b"x", torch.complex64])
def test_other_constants_are_refused(value):
    with pytest.raises(TypeError, match="a constant of type"):
        encode(value, no_node)


class Net(nn.Module):
    """A module called under two names, a parameter under two, a buffer, one that takes no gradient, a scalar."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3, eps=1e-5 + 2**-40, momentum=None, affine=False)
        self.act = nn.ReLU(inplace=True)
        self.inner = nn.Module()
        self.inner.again = self.act
        self.inner.register_buffer("shift", torch.tensor([[1.0, 2.0, 3.0]]))
        self.inner.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x):
        y = self.act(self.norm(self.first(x))) + self.inner.shift
        z = self.inner.again(self.second(y)).view(-1, 3)
        return {"all": torch.cat([y, z], dim=-1), "last": (z + self.inner.scale, x.size(0), None)}


def traced(net=None):
    gm = fx.GraphModule(net or Net(), fx.symbolic_trace(net or Net()).graph, "Net")
    assign_sites(gm.graph)
    return gm.eval()


def again(gm):
    structure = json.loads(json.dumps(write(gm, WORDS)))
    tensors = {name: one.detach().clone() for name, one in gm.state_dict().items() if name not in structure["same"]}
    return build(structure, tensors, WORDS).eval()


def test_a_graph_comes_back_bit_for_bit():
    net = Net().eval()
    gm = fx.GraphModule(net, fx.symbolic_trace(net).graph, "Net")
    assign_sites(gm.graph)
    x = torch.randn(4, 3)
    back = again(gm)
    assert text(back.graph) == text(gm.graph)
    assert [node.name for node in back.graph.nodes] == [node.name for node in gm.graph.nodes]
    assert type(back).__name__ == "Net"
    assert list(back.state_dict()) == list(gm.state_dict())
    wanted, found = gm(x), back(x)
    assert torch.equal(found["all"], wanted["all"])
    assert torch.equal(found["last"][0], wanted["last"][0])
    assert found["last"][1:] == wanted["last"][1:]
    assert (back.norm.eps, back.norm.momentum, back.act.inplace) == (1e-5 + 2**-40, None, True)
    assert write(back, WORDS) == write(gm, WORDS), "a second run changes nothing"


def test_what_is_shared_stays_shared_and_what_is_frozen_stays_frozen():
    net = Net()
    back = again(fx.GraphModule(net, fx.symbolic_trace(net).graph))
    assert back.second.weight is back.first.weight
    assert {name for name, one in back.named_parameters() if not one.requires_grad} == {"inner.scale"}
    assert isinstance(back.inner.scale, nn.Parameter)
    traced_twice = [str(node.target) for node in back.graph.nodes if node.op == "call_module"]
    assert len(traced_twice) == 5


def test_notes_come_back():
    gm = traced()
    for node in gm.graph.nodes:
        note(node, roles=("a", node.name), rule="made")
    back = again(gm)
    assert [info_of(node) for node in back.graph.nodes] == [info_of(node) for node in gm.graph.nodes]


class Odd(nn.Module):
    def forward(self, x):
        return x


def changed(change):
    net = Net()
    gm = fx.GraphModule(net, fx.symbolic_trace(net).graph)
    assign_sites(gm.graph)
    change(gm)
    return gm


def call(gm, op, target, *args):
    output = next(node for node in reversed(gm.graph.nodes) if node.op == "output")
    with gm.graph.inserting_before(output):
        return gm.graph.create_node(op, target, args)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda gm: gm.add_submodule("act", Odd()), r"act is a module of class .*\.Odd"),
        (lambda gm: gm.act.register_forward_hook(print), "act has a forward or hooks of its own"),
        (lambda gm: gm.act.register_forward_pre_hook(print), "act has a forward or hooks of its own"),
        (lambda gm: setattr(gm.act, "forward", torch.sigmoid), "act has a forward or hooks of its own"),
        (lambda gm: setattr(gm.act, "inplace", torch.ones(1)), "act has a constant of type Tensor"),
        (lambda gm: call(gm, "call_function", torch.sigmoid, 1), "sigmoid calls the function .*sigmoid"),
        (lambda gm: call(gm, "call_method", "tanh", 1), "tanh calls the method tanh"),
        (lambda gm: call(gm, "call_function", getattr, 1, "__class__"), r"reads the attribute \('__class__',\)"),
        (lambda gm: call(gm, "call_function", torch.cat, object()), "cat_1 has a constant of type object"),
        (
            lambda gm: gm.inner.register_buffer("gone", torch.ones(1), persistent=False),
            r"the graph has a buffer that no state dict holds \(gone\)",
        ),
    ],
)
def test_what_has_no_word_is_refused_when_it_is_written(change, words):
    with pytest.raises(Unwritable, match=words):
        write(changed(change), WORDS)


def test_an_attribute_that_may_be_read():
    gm = changed(lambda gm: call(gm, "call_function", getattr, next(iter(gm.graph.nodes)), "shape"))
    assert any(node.target is getattr for node in again(gm).graph.nodes)


def given_structure():
    gm = traced()
    structure = json.loads(json.dumps(write(gm, WORDS)))
    return structure, {name: one.detach().clone() for name, one in gm.state_dict().items()}


def module_named(structure, path):
    return next(record for name, record in structure["modules"] if name == path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, t: s.pop("nodes"), "'nodes' is missing or no list"),
        (lambda s, t: s.update(nodes=3), "'nodes' is missing or no list"),
        (lambda s, t: s["nodes"].insert(0, None), "node 0: 'None' stands where a mapping should"),
        (lambda s, t: s["nodes"][0].update(op="evil"), "node 0: its operation is 'evil'"),
        (lambda s, t: s["nodes"][0].update(note=0), "node 0: it has no note 0"),
        (lambda s, t: s["nodes"][0].update(roles=[1]), "node 0: '1' stands where a word should"),
        (lambda s, t: s["nodes"].reverse(), "does not stand before it"),
        (lambda s, t: s["modules"].insert(1, ["x.y", {"class": "ReLU", "arguments": {}}]), "module x.y: x"),
        (lambda s, t: s["modules"].append(["act", {"class": "ReLU", "arguments": {}}]), "'act' is taken"),
        (lambda s, t: s["modules"].append(3), "module 3: "),
        (lambda s, t: module_named(s, "first").update({"class": "Bilinear"}), "the module 'Bilinear' is outside"),
        (lambda s, t: module_named(s, "act")["arguments"].update(x=1), "module act: unknown argument 'x'"),
        (lambda s, t: module_named(s, "first")["arguments"].update(bias={"node": 0}), "its arguments name a node"),
        (lambda s, t: t.pop("first.bias"), r"its tensors do not fit its modules \(first.bias\)"),
        (
            lambda s, t: t.update({"first.bias": torch.ones(4)}),
            r"first.bias is torch.float32 \[4\], not torch.float32",
        ),
        (lambda s, t: t.update({"first.bias": torch.ones(3).int()}), "first.bias is torch.int32"),
        (lambda s, t: s["same"].update({"first.bias": "inner.shift"}), "first.bias is torch.float32"),
        (lambda s, t: s["same"].update({"x": "first.bias"}), "x is no tensor that first.bias can be"),
        (lambda s, t: s.update(name="a b"), "'a b' is no identifier"),
    ],
)
def test_what_is_no_structure_is_refused_with_a_reason(change, words):
    structure, tensors = given_structure()
    change(structure, tensors)
    with pytest.raises(Unreadable, match=words):
        build(structure, tensors, WORDS)


def test_code_that_python_warns_of_is_refused_without_a_second_line(recwarn):
    """fx writes the graph as Python, which warns of 1[0] when it compiles it."""

    class First(nn.Module):
        def forward(self, x):
            return x.size()[0]

    words = replace(WORDS, functions={**WORDS.functions, "operator.getitem": operator.getitem})
    structure = json.loads(json.dumps(write(traced(First()), words)))
    (record,) = [one for one in structure["nodes"] if one["target"].endswith("getitem")]
    record["args"] = [7, 0]
    with pytest.raises(Unreadable, match=r"its nodes make no graph .*subscriptable"):
        build(structure, {}, words)
    assert not recwarn.list


def test_words_are_added_but_not_replaced():
    more = WORDS.with_words(modules={"Odd": told_by(Odd, ())}, functions={"torch.sigmoid": torch.sigmoid})
    gm = changed(lambda gm: gm.add_submodule("act", Odd()))
    assert json.loads(json.dumps(write(gm, more)))["modules"]
    assert (more.name_of(Odd), WORDS.name_of(Odd)) == ("Odd", None)
    with pytest.raises(ValueError, match="'ReLU' is in the vocabulary already"):
        WORDS.with_words(modules={"ReLU": told_by(Odd, ())})
    with pytest.raises(ValueError, match=r"'torch\.cat' is in the vocabulary already"):
        WORDS.with_words(functions={"torch.cat": torch.add})


def test_a_built_graph_can_be_copied_and_changed():
    back = again(traced())
    other = copy.deepcopy(back)
    other.graph.lint()
    other.recompile()
    x = torch.randn(2, 3)
    assert torch.equal(other(x)["all"], back(x)["all"])
