"""``--imgsz`` on every command line: one side, or height and width in any form, and the size that was made decides."""

from __future__ import annotations

import argparse
import ast

import onnx
import pytest
from commands import refused, said

import fxqat
from fxqat.commands.arguments import image_size
from fxqat.commands.command_parser import CommandParser, parsed
from fxqat.commands.parser import COMMANDS
from fxqat.models.image_size import ImageSize

DRAWN = {"demo-data"}  # draws pictures of a width


def sized() -> list[str]:
    return [one.name for one in COMMANDS if "imgsz" in vars(_defaults(one))]


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
    found = parsed(val, ["a.pt", *option, *rest, "b.onnx", "--data", "d.yaml"])
    assert found.imgsz == ImageSize(height=384, width=640)
    assert found.models in (["a.pt", "b.onnx"], ["a.pt"]) or found.models == ["b.onnx"]


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
def made(calibrated, tmp_path_factory):
    """A .fxqat calibrated at 64 x 96, as its record says, and its file."""
    folder = tmp_path_factory.mktemp("sized")
    how = {**calibrated.recipe.calibration, "imgsz": [64, 96]}
    fxqat.save(calibrated.with_graph(calibrated.gm, calibration=how), folder / "n_ptq.fxqat")
    return folder


def test_what_was_calibrated_decides(made, capsys):
    model, file = str(made / "n_ptq.fxqat"), made / "n_int8.onnx"
    assert fxqat.load(model).imgsz == ImageSize(height=64, width=96)
    said(capsys, "export", model)
    proto = onnx.load(file)
    assert [one.dim_value for one in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 96]
    assert ast.literal_eval({one.key: one.value for one in proto.metadata_props}["imgsz"]) == [64, 96]


def test_another_size_is_said_and_an_illegal_one_refused(made, capsys):
    model = str(made / "n_ptq.fxqat")
    assert refused(capsys, "export", model, "--imgsz", "64", "100").splitlines()[-1] == (
        "fxqat: imgsz 64x100: is not a multiple of 32; use 64x96 or 64x128"
    )
