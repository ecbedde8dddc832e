"""A file of format 1, written by fxqat before files held their graphs: a tiny detector of one level, calibrated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from refusals import refusal
from safetensors import safe_open
from safetensors.torch import save_file

import fxqat
from fxqat.passes.quant_graph import QuantGraph

OLD = Path(__file__).with_name("format1.fxqat")


@pytest.fixture(scope="module")
def told():
    with safe_open(OLD, framework="pt") as file:
        return json.loads(file.metadata()["fxqat"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewritten(told, path, **changes):
    header, tensors = told
    save_file(tensors, path, metadata={"fxqat": json.dumps({**header, **changes})})
    return path


def test_it_loads_as_it_was(told):
    header, tensors = told
    model = fxqat.load(OLD)
    state = model.gm.state_dict()
    assert list(state) == list(model.gm.state_dict())
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    assert (model.stage, model.recipe.policy_text) == ("qat", header["recipe"]["policy_text"])
    assert model.recipe.calibration == header["recipe"]["calibration"]
    assert [done.name for done in model.recipe.passes] == ["canonicalize", "fuse", "assign", "insert"]
    y, _ = model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    # as the writing fxqat printed it, on another machine: other kernels move codes that lie on a tie
    assert float(y.detach().double().sum()) == pytest.approx(39139.485, rel=1e-3)


def test_it_goes_on_as_a_file_of_today(tmp_path):
    model = fxqat.load(OLD)
    path = fxqat.save(model, tmp_path / "new.fxqat")
    again = fxqat.load(path)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x)[0], model(x)[0])
    assert again.recipe == model.recipe
    retargeted, _ = fxqat.retarget(again, "openvino")
    assert len(QuantGraph(retargeted.gm).layers()) == len(QuantGraph(model.gm).layers())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_sha256": "0" * 64}, "makes another graph with this version of fxqat, Ultralytics or torch"),
        ({"patterns": [["mine.py", "0" * 64]]}, "was made with rules or passes of your own (mine.py)"),
        ({"passes": ["mine"]}, "was made with rules or passes of your own (mine)"),
        ({"policy_text": fxqat.Policy.load("float").text}, "does not fit the graph built from its recipe ("),
    ],
)
def test_what_no_longer_fits_is_to_be_prepared_again(told, tmp_path, change, words):
    changes = change if "text_sha256" in change else {"recipe": {**told[0]["recipe"], **change}}
    path = rewritten(told, tmp_path / "old.fxqat", **changes)
    said = refusal(fxqat.load, path)
    assert said.startswith(f"{path}: is of format 1, and {words}")
    assert said.endswith("; run fxqat prepare again")


def test_a_recipe_that_makes_no_sense(told, tmp_path):
    for changes in ({"recipe": {}}, {"source": None}, {"literals": 3}):
        assert "is damaged: its recipe makes no sense" in refusal(
            fxqat.load, rewritten(told, tmp_path / "odd.fxqat", **changes)
        )


def test_a_hostile_architecture_is_not_evaluated(told, tmp_path):
    source = json.loads(json.dumps(told[0]["source"]))
    source["architecture"]["activation"] = f"__import__('os').system('touch {tmp_path / 'ran'}')"
    said = refusal(fxqat.load, rewritten(told, tmp_path / "odd.fxqat", source=source))
    assert "is not a torch.nn layer" in said
    assert not (tmp_path / "ran").exists()
