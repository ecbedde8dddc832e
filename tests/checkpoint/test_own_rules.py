"""Rules and passes of a user's own: recorded in the file, not needed to read it, asked for where a step runs them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from refusals import refusal
from torch import fx, nn

import fxqat
from fxqat.evaluation.drift import stages
from fxqat.evaluation.float_export import export_float
from fxqat.graph.pipeline import PassReport
from fxqat.graph.site import operation
from fxqat.models.detector import RuleFile
from fxqat.passes import Rules, rule_files

REPOSITORY = Path(__file__).resolve().parents[2]
RULES = """
from torch import nn
from fxqat.graph.match import module, value
from fxqat.graph.rewrite import rule

@rule(module(nn.Upsample, value("x"), name="up"))
def nearest_again(edit, x, up):
    return edit.call(nn.Upsample(scale_factor=2), x, at=up)

LIST = (nearest_again,)
"""


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A pass with options of every kind."""

    to: str = "relu"
    times: tuple[int, ...] = (1, 2)
    only: type = nn.SiLU
    name: str = "rename"
    gives: None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        return PassReport(says="looked")


@pytest.fixture
def unknown(monkeypatch):
    """No rule file has been loaded by this process."""
    monkeypatch.setattr(rule_files, "_LOADED", {})
    monkeypatch.delenv("FXQAT_PATTERNS", raising=False)


def prepared(model, tmp_path, images, *, lists):
    rules = tmp_path / "mine" / "mine.py"
    rules.parent.mkdir()
    rules.write_text(RULES.replace("LIST", lists))
    qat, _ = fxqat.prepare(model, "w8a8", patterns=[rules])
    return fxqat.save(fxqat.calibrate(qat, [images]), tmp_path / "mine.fxqat"), rules


def test_a_file_tells_rule_files_and_needs_none(tmp_path, yolov8n, images, unknown):
    path, rules = prepared(yolov8n, tmp_path, images, lists="FUSE")
    rules.unlink()
    rule_files._LOADED.clear()
    model = fxqat.load(path)
    (file,) = model.recipe.patterns
    assert (file.name, file.lists, len(file.sha256)) == ("mine.py", ("FUSE",), 64)
    fused = next(done for done in model.recipe.passes if done.name == "fuse")
    assert "2 nearest_again" in fused.says
    assert fxqat.convert(model)[0].stage == "int8", "rules that fuse have had their turn"
    assert fxqat.retarget(model, "openvino")[0].recipe.target == "openvino"


def test_a_step_that_runs_rules_again_asks_for_them(tmp_path, yolov8n, images, unknown, monkeypatch):
    path, rules = prepared(yolov8n, tmp_path, images, lists="LOWER")
    model = fxqat.load(path)
    assert fxqat.convert(model)[1]["lower"].report.rewrites.count("nearest_again") == 2, "this process has run them"
    rule_files._LOADED.clear()
    digest = model.recipe.patterns[0].sha256[:12]
    said = f"is a rule file that the model was prepared with, and convert applies its rules; expected a file with SHA-256 {digest}...; name its folder in the environment variable FXQAT_PATTERNS"  # noqa: E501
    assert refusal(fxqat.convert, model) == f"mine.py: {said}"
    monkeypatch.chdir(rules.parent)
    assert refusal(fxqat.convert, model) == f"mine.py: {said}", "what lies in the working folder is nobody's choice"
    monkeypatch.setenv("FXQAT_PATTERNS", str(rules.parent))
    assert fxqat.convert(model)[1]["lower"].report.rewrites.count("nearest_again") == 2
    rules.write_text(rules.read_text() + "\n")
    rule_files._LOADED.clear()
    assert refusal(fxqat.convert, model) == f"mine.py: {said}", "another file of that name"


def test_whatever_lowers_a_model_runs_its_own_rules(tmp_path, calibrated, unknown):
    """A drift report and a float export have no option for rule files: the model says which are its own."""
    file = RuleFile(name="mine.py", sha256="0" * 64, lists=("FUSE", "LOWER"))
    model = calibrated.with_graph(calibrated.gm, patterns=(file,))
    untouched = model.with_graph(model.gm, stage="float")
    steps = [
        ("convert", lambda: stages(model, tmp_path, imgsz=64)),
        ("export", lambda: export_float(model, tmp_path / "float.onnx", imgsz=64)),
        ("export", lambda: fxqat.export(untouched, tmp_path / "float.onnx", imgsz=64)),
    ]
    for step, run in steps:
        assert f"and {step} applies its rules" in refusal(run)
    assert not list(tmp_path.iterdir())


def test_rules_for_a_target_are_asked_for_by_retarget_alone(yolov8n, calibrated, unknown):
    file = RuleFile(name="mine.py", sha256="0" * 64, lists=("QUANTIZE",))
    model = calibrated.with_graph(calibrated.gm, patterns=(file,))
    assert "and retarget applies its rules" in refusal(fxqat.retarget, model, "openvino")
    assert fxqat.convert(model)[0].stage == "int8"
    assert Rules.recorded((file,), "LOWER", "x") == Rules.load()


def test_passes_are_recorded_with_their_options(tmp_path, yolov8n):
    qat, _ = fxqat.prepare(yolov8n, "float", passes=[Rename(times=(3,))])
    again = fxqat.load(fxqat.save(qat, tmp_path / "mine.fxqat"))
    assert [done.name for done in again.recipe.passes] == ["canonicalize", "fuse", "rename", "assign", "insert"]
    own = again.recipe.passes[2]
    assert (dict(own.options), own.says) == ({"to": "relu", "times": [3], "only": "type"}, "looked")
    assert again.recipe == qat.recipe


class Halve(nn.Module):
    """A module of a user's own, with a tensor, a child and an argument."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor
        self.register_buffer("seen", torch.zeros(1))
        self.inner = nn.ReLU()

    def forward(self, x):
        return self.inner(x) * self.factor


@dataclass(frozen=True, kw_only=True)
class PutHalves:
    """A pass that puts Halve behind every Upsample."""

    name: str = "put_halves"
    gives: None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        for node in [one for one in gm.graph.nodes if operation(one) == "Upsample"]:
            path = f"halves.{node.name}"
            gm.add_submodule(path, Halve(0.5))
            with gm.graph.inserting_after(node):
                made = gm.graph.call_module(path, (node,))
            node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
        gm.recompile()
        return PassReport()


ADDED = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import fxqat, fxqat.errors
from test_own_rules import Halve
from fxqat.checkpoint import vocabulary
if "add" in sys.argv:
    vocabulary.register_module(Halve, arguments=("factor",))
try:
    model = fxqat.load(sys.argv[1])
    print([one.factor for one in model.gm.modules() if isinstance(one, Halve)])
except fxqat.errors.Problem as problem:
    print(problem)
"""


def loaded_elsewhere(path, *more):
    """What another process prints of the file."""
    folders = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    known = {"PYTHONPATH": folders, "PATH": "", "HOME": str(path.parent)}
    command = [sys.executable, "-c", ADDED, str(path), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=known).stdout.strip()


def test_modules_of_ones_own_are_added_to_the_vocabulary(tmp_path, yolov8n, monkeypatch):
    from fxqat.checkpoint import vocabulary

    monkeypatch.setattr(vocabulary, "_WORDS", list(vocabulary._WORDS))
    traced, path = PutHalves(), tmp_path / "own.fxqat"
    gm, _ = fxqat.Pipeline((traced,)).run(yolov8n.gm)
    own = yolov8n.with_graph(gm)
    name = f"{Halve.__module__}.Halve"
    assert refusal(fxqat.save, own, path) == (
        f"{path}: cannot hold the graph: halves.model_10 is a module of class {name}; "
        "expected what the vocabulary has a word for; add one, see fxqat.checkpoint.vocabulary"
    )
    assert list(tmp_path.iterdir()) == []
    vocabulary.register_module(Halve, arguments=("factor",))
    fxqat.save(own, path)
    again = fxqat.load(path)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x)[0], own(x)[0])
    assert loaded_elsewhere(path) == (
        f"{path}: holds no graph of the vocabulary: module halves.model_10: the module {name!r} is outside "
        "the vocabulary; make it again, or add the word (fxqat.checkpoint.vocabulary)"
    )
    assert loaded_elsewhere(path, "add") == "[0.5, 0.5]"
