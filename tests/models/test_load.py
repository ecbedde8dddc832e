"""Loading: what is refused, in which words, and that a refused file ran nothing."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch
from refusals import refusal
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

import fxqat
from fxqat.models.image_size import ImageSize
from fxqat.models.load import build, check_architecture, load_pt

ARCHITECTURE = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}


class Call:
    """Pickles as a call of ``function(*arguments)`` on loading."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


@pytest.fixture
def marker(tmp_path):
    """A file that hostile input makes; it must not exist afterwards."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "hostile input ran code"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint as Ultralytics writes it, of a small detector."""
    path = tmp_path_factory.mktemp("small") / "small.pt"
    model, _ = build(ARCHITECTURE)
    torch.save({"epoch": 3, "model": model.half(), "ema": None, "train_args": {"imgsz": 64}}, path)
    return path


def test_a_missing_file(tmp_path):
    path = tmp_path / "no.pt"
    assert refusal(fxqat.load, path) == f"{path}: no such file; expected a .pt checkpoint; check the path"


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.pt"
    path.touch()
    assert refusal(fxqat.load, path) == f"{path}: is empty; expected a .pt checkpoint; download it again"


@pytest.mark.parametrize("content", [b"not a checkpoint", pickle.dumps({"model": 1})])
def test_what_is_no_zip_file(tmp_path, content):
    path = tmp_path / "text.pt"
    path.write_bytes(content)
    assert "is not a checkpoint of torch.save, or is damaged" in refusal(fxqat.load, path)


def test_a_zip_file_of_something_else(tmp_path):
    path = tmp_path / "zip.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    assert (
        refusal(fxqat.load, path)
        == f"{path}: is an archive of something else (no data.pkl); expected a .pt file; download it again"
    )


def test_a_truncated_checkpoint(tmp_path, small):
    path = tmp_path / "cut.pt"
    path.write_bytes(small.read_bytes()[:-3000])
    assert "is damaged" in refusal(fxqat.load, path)


def test_a_checkpoint_of_something_else(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([1, 2], path)
    assert "holds no model but list; expected a checkpoint written by Ultralytics" in refusal(fxqat.load, path)


@pytest.mark.parametrize(("kind", "name"), [("ClassificationModel", "cls"), ("SegmentationModel", "seg")])
def test_a_model_of_another_task(tmp_path, kind, name):
    path = tmp_path / "other.pt"
    torch.save({"model": getattr(tasks, kind)(f"yolov8n-{name}.yaml", verbose=False)}, path)
    assert fxqat.load(path).source.task == {"cls": "classify", "seg": "segment"}[name]


@pytest.mark.parametrize(
    "wrap", [lambda evil: evil, lambda evil: {"model": evil}, lambda evil: {"model": None, "x": [evil]}]
)
def test_a_pickle_that_calls_a_function_is_refused_and_runs_nothing(tmp_path, marker, wrap):
    path = tmp_path / "hostile.pt"
    torch.save(wrap(Call(os.system, f"touch {marker}")), path)
    words = refusal(fxqat.load, path)
    assert "posix.system, which is no layer of torch or Ultralytics and could run any code; pass --trust" in words


def test_trust_lets_a_pickle_run(tmp_path):
    path, ran = tmp_path / "hostile.pt", tmp_path / "ran"
    torch.save({"model": Call(os.system, f"touch {ran}")}, path)
    refusal(fxqat.load, path, trust=True)
    assert ran.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "__import__", "open"])
def test_builtins_are_refused(tmp_path, marker, name):
    path = tmp_path / "hostile.pt"
    torch.save({"model": Call(getattr(__builtins__, name, None) or __builtins__[name], "1")}, path)
    assert f"is refused: it names {'io' if name == 'open' else 'builtins'}.{name}" in refusal(fxqat.load, path)


def test_a_pickle_that_calls_an_allowed_class_is_refused(tmp_path, marker):
    """DetectionModel is on the allow-list, but its constructor evaluates the activation of an architecture."""
    path = tmp_path / "hostile.pt"
    hostile = {**ARCHITECTURE, "activation": f"__import__('os').system('touch {marker}')"}
    torch.save({"model": Call(tasks.DetectionModel, hostile)}, path)
    assert "is refused: it calls DetectionModel instead of restoring one; pass --trust" in refusal(fxqat.load, path)


def test_functions_of_ultralytics_are_refused(tmp_path):
    path = tmp_path / "hostile.pt"
    torch.save({"model": Call(tasks.torch_safe_load, "other.pt")}, path)
    assert "is refused: it names ultralytics.nn.tasks.torch_safe_load" in refusal(fxqat.load, path)


@pytest.mark.parametrize(
    "activation",
    [
        "__import__('os').system('touch {marker}')",
        "nn.ReLU(__import__('os').system('touch {marker}'))",
        "nn.ReLU() if __import__('os').system('touch {marker}') else 0",
        "nn.init.constant_(1, 2)",
        "(lambda: 1)()",
        "nn.ReLU",
        "torch.hub.load('a', 'b')",
    ],
)
def test_an_activation_that_is_no_layer_is_refused(marker, activation):
    text = activation.format(marker=marker)
    assert "is not a torch.nn layer; expected such as nn.ReLU()" in refusal(build, {**ARCHITECTURE, "activation": text})


@pytest.mark.parametrize(
    "name", ["exec", "eval", "attempt_load_weights", "parse_model", "nn.init", "torch", "DetectionModel"]
)
def test_a_layer_that_is_no_layer_is_refused(name):
    words = refusal(build, {**ARCHITECTURE, "backbone": [[-1, 1, name, ["print(1)"]]]})
    assert (
        f"the entry [-1, 1, '{name}', ['print(1)']] is not a layer; expected [from, repeats, layer, arguments]" in words
    )


def test_a_model_inside_an_architecture_is_refused(marker):
    inner = {**ARCHITECTURE, "activation": f"__import__('os').system('touch {marker}')"}
    assert "is not a layer" in refusal(build, {**ARCHITECTURE, "backbone": [[-1, 1, "DetectionModel", [inner]]]})


def test_a_hostile_architecture_file(tmp_path, marker):
    path = tmp_path / "hostile.yaml"
    path.write_text(f"nc: 1\nactivation: __import__('os').system('touch {marker}')\nbackbone: []\nhead: []\n")
    assert str(path) in refusal(fxqat.load, path)


def test_architectures_that_are_none(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    assert refusal(fxqat.load, path) == f"{path}: is no YAML mapping; expected an Ultralytics architecture"
    assert "has no lists backbone and head" in refusal(check_architecture, {"nc": 1}, "a.yaml")
    assert "cannot be built" in refusal(build, {**ARCHITECTURE, "backbone": [[-1, 1, "Conv", []]]})
    assert "no such architecture; did you mean 'yolov8n.yaml'?" in refusal(fxqat.load, "yolo8n.yaml")
    assert "neither a checkpoint nor an architecture" in refusal(fxqat.load, "yolov8n")
    assert "is an exported file; expected a .pt, .yaml or .fxqat file" in refusal(fxqat.load, "yolov8n.onnx")


def test_building_leaves_no_trace_in_the_process():
    before, state = Conv.default_act, torch.random.get_rng_state()
    build({**ARCHITECTURE, "activation": "nn.ReLU()"})
    refusal(build, {**ARCHITECTURE, "activation": "nn.ReLU()", "backbone": [[-1, 1, "Conv", ["a", "b", "c"]]]})
    assert Conv.default_act is before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_building_is_repeatable_and_takes_a_class_count():
    (first, source), (second, _) = build(ARCHITECTURE, classes=7), build(ARCHITECTURE, classes=7)
    assert source.architecture["nc"] == len(source.names) == 7
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_checkpoint_comes_back_as_it_was(small):
    model, source = load_pt(small)
    wanted, _ = build(ARCHITECTURE)
    assert type(model) is tasks.DetectionModel
    assert [type(m) for m in model.modules()] == [type(m) for m in wanted.modules()]
    assert source.name == "small.pt"
    assert source.architecture["nc"] == 2
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name].half().to(tensor.dtype)), name


def test_the_ema_is_preferred(tmp_path):
    path = tmp_path / "ema.pt"
    (model, _), (ema, _) = build(ARCHITECTURE), build(ARCHITECTURE)
    nn.init.constant_(ema.model[0].conv.weight, 0.5)
    torch.save({"model": model, "ema": ema}, path)
    assert (load_pt(path)[0].model[0].conv.weight == 0.5).all()


def test_official_weights_load_without_trust(shared_data):
    detector = fxqat.load(shared_data / "weights" / "yolov8n.pt")
    assert detector.names[0] == "person"
    assert detector.source.stride == (8.0, 16.0, 32.0)
    assert len(detector.source.sha256) == 64


def test_the_size_that_a_checkpoint_was_trained_at_is_its_own(small):
    """As Ultralytics' own predict and val take it: 640 would be another task for a classifier of 192 pixels."""
    model = fxqat.load(small)
    assert (model.source.imgsz, model.imgsz) == (64, ImageSize.of(64))


@pytest.mark.parametrize(
    ("told", "size"),
    [
        ({"imgsz": 192}, 192),
        ({"imgsz": 600}, 608),  # a multiple of the stride
        ({"imgsz": [640, 480]}, 640),  # no size of a training
        ({"imgsz": True}, 640),
        ({"imgsz": -1}, 640),
        ({"imgsz": 1 << 40}, 640),
        ({}, 640),
        (None, 640),
    ],
)
def test_sizes_that_checkpoints_tell(tmp_path, told, size):
    model, _ = build(ARCHITECTURE)
    torch.save({"model": model.half(), "ema": None, "train_args": told}, tmp_path / "a.pt")
    assert fxqat.load(tmp_path / "a.pt").imgsz == ImageSize.of(size)
