"""Files that somebody changed: every one is a detector or a refusal of one line, and nothing runs that is no word.

A sample of ``python -m bench.mutated_files``, and the ways into generated code one by one.
"""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
from refusals import refusal

import fxqat
from bench.mutated_files import CODE, MUTATIONS, Given, damaged, outcome
from fxqat.checkpoint import fxqat_format


@pytest.fixture(scope="module")
def file(tmp_path_factory, calibrated):
    return fxqat.save(calibrated, tmp_path_factory.mktemp("saved") / "qat.fxqat")


@pytest.fixture(scope="module")
def given(file):
    return Given.read(file)


@pytest.fixture
def changed(given, tmp_path, monkeypatch):
    """``changed(f)``: a file whose graph ``f`` changed, in a folder where code that ran would leave a file RAN."""
    monkeypatch.chdir(tmp_path)

    def write(change):
        graphs = copy.deepcopy(given.graphs)
        change(graphs["graph"])
        given.write(tmp_path / "odd.fxqat", graphs)
        return tmp_path / "odd.fxqat"

    yield write
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("kind", MUTATIONS)
def test_mutated_graphs(changed, kind):
    found = {outcome(changed(lambda graph, seed=seed: MUTATIONS[kind](graph, Random(seed)))) for seed in range(2)}
    assert found <= {"refused", "loaded"}


def test_damaged_files(file, tmp_path):
    content, chance = file.read_bytes(), Random(3)
    path = tmp_path / "odd.fxqat"
    for _ in range(12):
        path.write_bytes(damaged(content, chance))
        assert path.read_bytes() == content or outcome(path) == "refused"


def at(graph, op, target=None):
    """The first node with this operation, and target where one is given."""
    return next(node for node in graph["nodes"] if node["op"] == op and target in {None, node["target"]})


def entry(graph, path):
    return next(record for name, record in graph["modules"] if name == path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda g: at(g, "placeholder").update(target=f"x=({CODE})"),
            f"node 0: {f'x=({CODE})'[:40]!r} is no identifier",
        ),
        (lambda g: at(g, "placeholder").update(name="a b"), "node 0: 'a b' is no identifier"),
        (lambda g: at(g, "placeholder").update(name="import"), "node 0: 'import' is no identifier"),
        (
            lambda g: at(g, "call_function").update(kwargs={f"x=({CODE}), y": 1}),
            f"{f'x=({CODE}), y'[:40]!r} is no identifier",
        ),
        (
            lambda g: at(g, "call_function").update(target="os.system"),
            "the function 'os.system' is outside the vocabulary",
        ),
        (lambda g: at(g, "call_function").update(target="builtins.eval"), "the function 'builtins.eval' is outside"),
        (
            lambda g: at(g, "call_method").update(target="__reduce__"),
            "the method '__reduce__' is outside the vocabulary",
        ),
        (
            lambda g: at(g, "call_function").update(target="getattr", args=[{"node": 0}, "__class__"]),
            "the attribute ('__class__',) is outside the vocabulary",
        ),
        (lambda g: at(g, "get_attr").update(target=f'x"); {CODE}; ("'), "is no path"),
        (lambda g: at(g, "get_attr").update(target="quantizer.images.forward"), "is no tensor"),
        (lambda g: at(g, "call_module").update(target="model"), "model is no module to call"),
        (lambda g: g.update(name="a:\n import os"), "is no identifier"),
        (
            lambda g: entry(g, "model.0.conv").update({"class": "os.system"}),
            "the module 'os.system' is outside the vocabulary",
        ),
        (lambda g: entry(g, "model.0.conv").update({"same": "model"}), "'model.0.conv' would stand within itself"),
        (lambda g: entry(g, "model.0.conv")["arguments"].update(device="cuda"), "unknown argument 'device'"),
        (
            lambda g: entry(g, "model.0.conv")["arguments"].update(in_channels=10**12),
            "not torch.float32 [16, 1000000000000",
        ),
        (
            lambda g: g["modules"].append(["model.0.forward", {"class": "SiLU", "arguments": {}}]),
            "is no path of a module",
        ),
        (lambda g: g["modules"].append(["_modules", {"class": "SiLU", "arguments": {}}]), "is no path of a module"),
        (lambda g: g["nodes"][1].update(args=[{"node": 400}]), "reads node 400, which does not stand before it"),
        (lambda g: g["nodes"].append(copy.deepcopy(g["nodes"][-1])), "is taken"),
        (lambda g: g["nodes"].pop(), "its last node, and no other, is not the output"),
        (lambda g: g["same"].update({"model.0.conv.weight": "model.1.conv.weight"}), "model.0.conv.weight is"),
    ],
)
def test_no_way_into_the_generated_code(changed, change, words):
    said = refusal(fxqat.load, changed(change))
    assert words in said
    assert said.endswith("; make it again, or add the word (fxqat.checkpoint.vocabulary)")


def test_a_torch_observer_of_a_module_that_nobody_imported_is_refused(changed):
    spec = {"dict": {"observer": "torch.ao.quantization.pt2e.graph_utils.Observer"}}
    said = refusal(fxqat.load, changed(lambda g: entry(g, "quantizer.images")["arguments"].update(spec=spec)))
    assert "the observer 'torch.ao.quantization.pt2e.graph_utils.Observer' is outside the vocabulary" in said


def test_a_quantizer_with_more_channels_than_there_are_is_refused_before_they_are_made(changed):
    quantizer = "model.0.conv.weight_fake_quant"
    said = refusal(fxqat.load, changed(lambda g: entry(g, quantizer)["arguments"].update(channels=10**12)))
    assert "1000000000000 channels are not legal" in said


def test_a_tensor_that_a_graph_lacks_is_named(file, tmp_path):
    given = Given.read(file)
    del given.tensors["model.0.conv.weight"]
    given.write(tmp_path / "odd.fxqat", given.graphs)
    assert "its tensors do not fit its modules (model.0.conv.weight)" in refusal(fxqat.load, tmp_path / "odd.fxqat")


def test_graphs_that_are_no_bytes(file, tmp_path, monkeypatch):
    given = Given.read(file)
    monkeypatch.setattr(fxqat_format, "_packed", lambda graphs: torch.zeros(3))
    given.write(tmp_path / "odd.fxqat", given.graphs)
    assert "its recipe makes no sense (its graphs are no bytes)" in refusal(fxqat.load, tmp_path / "odd.fxqat")
