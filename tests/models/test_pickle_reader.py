"""The reader of pickles: what Python's own unpickler gives for plain data, and nothing called beside."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import pickletools

import models.checkpoint_files as files
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models.checkpoint_files import Call, named, text
from refusals import refusal
from torch import nn
from ultralytics.nn.modules import Conv, Detect
from ultralytics.nn.tasks import DetectionModel

import fxqat
from fxqat.models.checkpoint_names import CheckpointNames, modern
from fxqat.models.pickle_reader import Malformed, PickleReader, Refused
from fxqat.models.unpickle import unpickled

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(LEAVES, lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=3), max_leaves=4)
PLAIN = st.recursive(
    LEAVES | st.sets(HASHABLE, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3).map(collections.OrderedDict)
    ),
    max_leaves=20,
)


def read(words: bytes):
    return PickleReader(io.BytesIO(words), CheckpointNames()).load()


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_as_pickle_gives_it(data, protocol):
    words = pickle.dumps(data, protocol)
    got, wanted = read(words), pickle.loads(words)
    assert got == wanted
    assert repr(type(got)) == repr(type(wanted))


def outcome(words: bytes) -> str:
    """What comes of a pickle, in words: any other error than a refusal leaves the test."""
    try:
        return f"a {type(read(words)).__name__}"
    except (Malformed, Refused) as refusal:
        return str(refusal)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(words):
    assert outcome(words) == outcome(words) != ""


@given(PLAIN, st.data())
def test_a_pickle_that_is_cut_short_is_malformed(data, drawn):
    words = pickle.dumps(data, 2)
    with pytest.raises(Malformed):
        read(words[: drawn.draw(st.integers(0, len(words) - 1))])


def test_objects_that_hold_themselves():
    ring: list = []
    ring.append(ring)
    got = read(pickle.dumps(ring))
    assert got[0] is got


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ultralytics.yolo.utils.loss.BboxLoss", "ultralytics.utils.loss.BboxLoss"),
        ("ultralytics.yolo.v8.detect.train.Loss", "ultralytics.models.yolo.detect.train.Loss"),
        ("ultralytics.nn.modules.block.Silence", "torch.nn.modules.linear.Identity"),
        ("ultralytics.nn.tasks.YOLOv10DetectionModel", "ultralytics.nn.tasks.DetectionModel"),
        ("pathlib._local.PosixPath", "pathlib.PosixPath"),
        ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        ("numpy.corefree.scalar", "numpy.corefree.scalar"),
        ("ultralytics.nn.modules.conv.Conv", "ultralytics.nn.modules.conv.Conv"),
    ],
)
def test_names_of_other_versions(old, new):
    assert ".".join(modern(*old.rsplit(".", 1))) == new


class Touch:
    """A class whose every way to make one, fill it or give it a state runs code."""

    def __new__(cls, *arguments):
        raise AssertionError("ran")

    def __setstate__(self, state):
        raise AssertionError("ran")


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def layer(kind: type[nn.Module], state: bytes = b"") -> bytes:
    """A restored layer, whose state has the parts of ``nn.Module`` and the given items besides."""
    parts = b"".join(text(name) + b"}" for name in ("_modules", "_parameters", "_buffers"))
    return named(kind.__module__, kind.__name__) + b")\x81}(" + parts + state + b"ub"


SYSTEM = named(os.system.__module__, "system")
GETATTR = named("builtins", "getattr")
DETECT = named("ultralytics.nn.modules.head", "Detect")
FORWARD = call(GETATTR, DETECT, text("forward"))
ODD = named("collections", "OrderedDict")
HOSTILE = {
    "os.system": (
        call(SYSTEM, text("touch {}")),
        "system, which is no layer of torch or Ultralytics and could run any",
    ),
    "builtins.eval": (call(named("builtins", "eval"), text("1")), "it names builtins.eval"),
    "builtins.exec in Python 2": (call(named("__builtin__", "exec"), text("1")), "it names builtins.exec"),
    "torch.hub": (call(named("torch.hub", "load"), text("a/b"), text("c")), "it names torch.hub.load"),
    "torch.load": (call(named("torch", "load"), text("a.pt")), "it names torch.load"),
    "storage bytes": (call(named("torch.storage", "_load_from_bytes"), text("a")), "it names torch.storage._load"),
    "a function of Ultralytics": (
        call(named("ultralytics.nn.tasks", "torch_safe_load"), text("a.pt")),
        "it names ultralytics.nn.tasks.torch_safe_load",
    ),
    "a function beside the layers": (
        call(named("ultralytics.nn.modules.block", "fuse_conv_and_bn")),
        "it names ultralytics.nn.modules.block.fuse_conv_and_bn",
    ),
    "a class that modules import": (
        call(named("ultralytics.nn.modules.block", "torch")),
        "it names ultralytics.nn.modules.block.torch",
    ),
    "protocol 4": (text(os.system.__module__) + text("system") + b"\x93" + text("x") + b"\x85R", "system, which is no"),
    "the constructor of a model": (
        call(named("ultralytics.nn.tasks", "DetectionModel"), text("a.yaml")),
        "it calls DetectionModel instead of restoring one",
    ),
    "a layer that is called": (layer(Conv) + b"(tR", "it calls a Conv"),
    "a method that is called": (FORWARD + b"(tR", "it calls a function"),
    "the globals of a method": (
        call(GETATTR, FORWARD, text("__globals__")),
        "it calls getattr(a function, '__globals__",
    ),
    "a private attribute": (call(GETATTR, DETECT, text("__init__")), "it calls getattr(Detect, '__init__')"),
    "another attribute": (call(GETATTR, DETECT, text("export")), "it calls getattr(Detect, 'export')"),
    "an attribute of a module": (call(GETATTR, ODD, text("fromkeys")), "getattr(collections.OrderedDict, 'fromkeys')"),
    "a name that is none": (call(GETATTR, DETECT, ODD), "it calls getattr(Detect, "),
    "a method of what is no layer": (
        call(call(named("dill._dill", "_load_type"), text("MethodType")), FORWARD, text("x")),
        "it makes a method of a str",
    ),
    "code by dill": (
        call(named("dill._dill", "_load_type"), text("CodeType")),
        "it names CodeType by dill, which could",
    ),
    "a function by dill": (call(named("dill._dill", "_create_function")), "it names dill._dill._create_function"),
    "the state of a class": (DETECT + b"}" + text("forward") + FORWARD + b"sb", "it gives a Global a state"),
    "the state of a function": (FORWARD + b"}" + text("__code__") + b"Nsb", "it gives a function a state"),
    "the state of a list": (b"]}b", "it gives a list a state"),
    "slots": (DETECT + b"N}" + text("forward") + b"Ns\x86b", "it gives a Global a state"),
    "a layer filled like a list": (layer(Conv) + b"Na", "it fills a Conv like a list"),
    "a layer filled like a mapping": (layer(Conv) + text("a") + b"Ns", "it fills a Conv like a dict"),
    "a layer filled like a set": (layer(Conv) + b"(Nu", "it fills a Conv like a dict"),
    "items of an endless object": (
        call(named("builtins", "list"), layer(nn.Sequential)),
        "it fills a container from a",
    ),
    "an object of a function": (named("builtins", "getattr") + b")\x81", "it calls getattr(a NoneType"),
    "an object of no class": (b"N)\x81", "it makes an object of NoneType, which is no class"),
    "objects of protocol 1": (
        call(named("copy_reg", "_reconstructor"), SYSTEM, named("builtins", "object"), b"N"),
        "system, which is no layer",
    ),
    "a tensor by another function": (
        call(named("torch._tensor", "_rebuild_from_type_v2"), ODD, named("torch", "Tensor"), b")", b"N"),
        "it makes a tensor by collections.OrderedDict",
    ),
    "something outside the pickle": (text("module") + b"Q", "it names something outside the pickle that is no tensor"),
    "a layer that is text": (
        layer(nn.Sequential, text("_modules") + b"}" + text("0") + text("x") + b"s"),
        "the 0 of a Sequential is a str, which is no Module",
    ),
    "a weight that is a layer": (
        layer(nn.Sequential, text("_buffers") + b"}" + text("w") + layer(Conv) + b"s"),
        "the w of a Sequential is a Conv, which is no Tensor",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(kind, tmp_path):
    words, reason = HOSTILE[kind]
    marker = tmp_path / "ran"
    words = words.replace(text("touch {}"), text(f"touch {marker}"))
    path = files.write_pickle(tmp_path / "best.pt", b"\x80\x02" + words + b".")
    line = refusal(fxqat.load, path)
    assert f"{path}: is refused: " in line
    assert reason in line
    assert not marker.exists()


def test_a_state_that_brings_its_own_setstate_is_not_called(tmp_path):
    """An instance's attribute hides the method of its class; a second BUILD must not call it."""
    state = text("__setstate__") + layer(nn.Identity)
    twice = layer(Conv, state) + b"}(" + b"".join(text(name) + b"}" for name in ("_modules", "_parameters", "_buffers"))
    got = unpickled(files.write_pickle(tmp_path / "best.pt", b"\x80\x02" + twice + b"ub."))
    assert type(got) is Conv


def test_objects_inside_arrays_are_refused_by_name(tmp_path):
    array = np.array([Call(os.system, f"touch {tmp_path / 'ran'}")], dtype=object)
    path = files.write(tmp_path / "best.pt", {"model": files.detector(), "x": array})
    assert "system, which is no layer of torch or Ultralytics and could run any code" in refusal(fxqat.load, path)
    assert not (tmp_path / "ran").exists()


def test_classes_with_side_effects_are_neither_made_nor_filled(tmp_path):
    for value in (Call(Touch), Call(Touch.__new__, Touch), Call(object.__new__, Touch, state={"a": 1})):
        path = files.write(tmp_path / "best.pt", [value])
        assert "could run any code" in refusal(fxqat.load, path)


def test_leftovers_are_not_imported(tmp_path):
    """torch.optim.never is on the list of what may stand beside a model, and no such module exists."""
    words = b"\x80\x02" + call(named("torch.optim.never", "Never"), text("a")) + b"}" + text("b") + b"Nsb."
    got = unpickled(files.write_pickle(tmp_path / "best.pt", words))
    assert (got.name, got.arguments, got.state) == ("torch.optim.never.Never", ("a",), {"b": None})


def test_nothing_of_the_process_changes(tmp_path):
    """What Ultralytics' loader leaves behind: globals that torch.load(weights_only=True) takes from then on."""
    before = set(torch.serialization.get_safe_globals())
    forward, state = Conv.forward, set(vars(builtins))
    unpickled(files.write(tmp_path / "best.pt", {"model": files.detector()}))
    assert set(torch.serialization.get_safe_globals()) == before
    assert Conv.forward is forward
    assert set(vars(builtins)) == state


def test_a_long_or_unprintable_name_is_one_short_line(tmp_path):
    words = b"\x80\x02" + named("evil\x1b[31m", "x" * 10_000) + b"."
    line = refusal(unpickled, files.write_pickle(tmp_path / "best.pt", words))
    assert len(line) < 500
    assert line.isprintable()


def test_every_opcode_is_read_or_named():
    """Opcodes of old-style instances, registered extensions and buffers outside the pickle are the only ones left."""
    known = {opcode.name for opcode in pickletools.opcodes}
    unread = set()
    for opcode in pickletools.opcodes:
        with pytest.raises((Malformed, Refused)) as caught:
            read(opcode.code.encode("latin1") + b"\0" * 9 + b"1\n1\n")
        if str(caught.value) == f"malformed pickle: opcode {opcode.name}":
            unread.add(opcode.name)
    assert unread == {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"} & known


def test_a_detector_is_restored_and_not_constructed(tmp_path, monkeypatch):
    path = files.write(tmp_path / "best.pt", {"model": files.detector()})
    for kind in (DetectionModel, Detect, Conv, nn.Conv2d):
        monkeypatch.setattr(kind, "__init__", lambda *_: pytest.fail("constructed"))
    assert type(unpickled(path)["model"]) is DetectionModel
