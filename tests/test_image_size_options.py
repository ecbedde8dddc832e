"""``--imgsz`` on every command line: one side, or height and width in any form, and the size that was made decides."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from commands import refused
from torch import fx, nn

from fxqat.commands.arguments import image_size
from fxqat.commands.command import image_size as model_size
from fxqat.commands.command_parser import CommandParser, parsed
from fxqat.commands.parser import COMMANDS
from fxqat.evaluation.comparison import usual_size
from fxqat.evaluation.predictor import Predictor
from fxqat.models.detector import Detector, Recipe, Source
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize

DRAWN = {"demo-data"}  # draws pictures of a width


def _defaults(command) -> argparse.Namespace:
    made = argparse.ArgumentParser()
    command.arguments(made)
    return argparse.Namespace(**{action.dest: action.type for action in made._actions})


def test_every_command_takes_a_rectangle():
    found = {one.name: vars(_defaults(one)).get("imgsz") for one in COMMANDS}
    taking = {name for name, kind in found.items() if kind is image_size}
    assert taking >= {"calibrate", "train", "export", "val", "verify", "drift", "analyze", "sensitivity", "search"}
    assert taking >= {"report", "run", "retarget"}
    assert {name for name, kind in found.items() if kind not in (None, image_size)} <= DRAWN


@pytest.mark.parametrize(
    "words", [["384", "640"], ["384,640"], ["384x640"], ["384 640"], ["[384, 640]"], ["=384,640"], ["=384", "640"]]
)
def test_every_form_is_one_option(words):
    (val,) = (one for one in COMMANDS if one.name == "val")
    first, *rest = words
    option = [f"--imgsz{first}"] if first.startswith("=") else ["--imgsz", first]
    found = parsed(val, ["--data", "d.yaml", *option, *rest, "a.pt", "b.onnx"])
    assert (found.imgsz, found.models) == (ImageSize(height=384, width=640), ["a.pt", "b.onnx"])


def test_one_side_takes_no_model_with_it():
    parser = CommandParser(prog="x")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--imgsz", type=image_size)
    parser.add_argument("--images", type=int)
    found = parser.parse_args(["--imgsz", "640", "a.onnx", "b.onnx", "--images", "3"])
    assert (found.imgsz, found.models, found.images) == (ImageSize.of(640), ["a.onnx", "b.onnx"], 3)
    assert parser.parse_args(["a", "--imgsz", "64", "--images", "3"]).imgsz == ImageSize.of(64)


def test_what_is_no_size(capsys):
    words = refused(capsys, "val", "a.onnx", "--data", "d.yaml", "--imgsz", "wide")
    says = "imgsz wide: is no size of an image; expected height and width in pixels, such as 640, 384,640 or 384x640"
    assert words == f"fxqat val: argument --imgsz: {says}; see fxqat val --help\n"


@pytest.fixture(scope="module")
def network():
    """Any graph: sizes are a matter of the record beside it."""
    return fx.symbolic_trace(nn.Identity())


def recorded(network, **recipe) -> Detector:
    names = {0: "a"}
    source = Source(name="n.pt", sha256="", architecture={}, names=names, stride=(8.0, 16.0, 32.0))
    return Detector(network, source, Recipe(stage="qat", **recipe))


@pytest.mark.parametrize("said", [64, [64, 96]])
def test_what_was_calibrated_or_trained_decides(network, said):
    calibrated = recorded(network, calibration={"imgsz": said})
    trained = recorded(network, calibration={"imgsz": 640}, training={"config": {"imgsz": said}})
    for model in (calibrated, trained):
        assert model.imgsz == ImageSize.of(said)
        assert model_size(argparse.Namespace(imgsz=None), model) == model.imgsz
    assert recorded(network).imgsz == DEFAULT_SIZE


@pytest.mark.parametrize(("recipe", "size"), [({}, 320), ({"calibration": {"imgsz": 64}}, 64)])
def test_the_size_of_float_training_decides_where_nothing_was_calibrated(network, recipe, size):
    model = recorded(network, **recipe)
    model.source = replace(model.source, imgsz=320)
    assert model.imgsz == ImageSize.of(size)


def predictor(**sizes: int) -> Predictor:
    made = {name: ImageSize.of(size) for name, size in sizes.items()}
    return Predictor(name="", predict=lambda images: images, names={}, **made)


@pytest.mark.parametrize(
    ("models", "size"),
    [
        ([predictor()], 640),
        ([predictor(float_size=192)], 192),
        ([predictor(float_size=192), predictor(usual=320, float_size=192)], 320),
        ([predictor(float_size=192), predictor(imgsz=96)], 96),
    ],
)
def test_models_are_compared_at_the_size_of_a_file_then_of_calibration_then_of_float_training(models, size):
    assert usual_size(models) == ImageSize.of(size)


def test_another_size_than_calibrated_is_said(network, capsys):
    model = recorded(network, calibration={"imgsz": [64, 96]})
    assert model_size(argparse.Namespace(imgsz=ImageSize.of(64)), model) == ImageSize.of(64)
    assert capsys.readouterr().err == "fxqat: calibrated at 64x96 pixels, used at 64\n"
    model_size(argparse.Namespace(imgsz=ImageSize.of("64 96")), model)
    assert capsys.readouterr().err == ""
