"""fxqat train."""

from __future__ import annotations

import json
import sys

import pytest

import fxqat
from fxqat import cli
from fxqat.commands.train import _value, _verdict
from fxqat.training.trainer import Trainer


@pytest.fixture
def ptq_file(ptq, tmp_path):
    return fxqat.save(ptq, tmp_path / "n_ptq.fxqat")


def test_from_a_calibrated_file_to_a_trained_one(ptq_file, tiny_data, capsys):
    tail = ["--data", str(tiny_data), "--imgsz", "64", "--batch", "6", "--epochs", "1", "--device", "cpu", "-q"]
    record = ptq_file.with_name("record.json")
    tail += ["--unlabelled", "--lsq", "--set", "lr0=2e-5", "--json", str(record)]
    assert cli.main(["train", str(ptq_file), *tail]) == 0
    said = capsys.readouterr().out.splitlines()
    path = ptq_file.with_name("n_qat.fxqat")
    assert said[-1] == f"wrote {path}"
    start = 100 * json.loads(record.read_text())["map5095"][0]
    assert said[-2] == f"no epoch was better than the model as given (mAP50-95 {start:.2f}): that is the result"
    assert said[0] == "learning from the float network, learning scales: 1 epoch, 64 pixels, batch 6, lr0 2e-05"
    assert said[1].startswith("epoch  mAP50-95")
    config = fxqat.load(path).recipe.training["config"]
    assert (config["lsq"], config["loss"]["task"], config["options"]) == (True, 0.0, {"lr0": 2e-5})
    assert config["data"] == tiny_data.name
    assert json.loads(record.read_text()) == fxqat.load(path).recipe.training
    assert (path.with_suffix("") / "weights" / "state.safetensors").is_file()


def test_interrupting_says_how_to_go_on(ptq_file, tiny_data, capsys, monkeypatch):
    def interrupted(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "optimizer_step", interrupted)
    tail = ["--data", str(tiny_data), "--imgsz", "64", "--batch", "6", "--device", "cpu", "-q"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", str(ptq_file), *tail])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "fxqat: interrupted; no epoch was finished\n"
    assert not ptq_file.with_name("n_qat.fxqat").exists()


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (["--set", "lr0"], "fxqat: --set: 'lr0'; expected NAME=VALUE, such as lr0=0.00002\n"),
        (["--set", "epoch=3"], "fxqat: train: unknown option 'epoch'; did you mean 'epochs'?\n"),
        (["--epochs", "0"], "fxqat: train: epochs: 0 is not legal, expected 1 or more\n"),
    ],
)
def test_bad_options_are_one_line(ptq_file, tiny_data, capsys, tail, says):
    assert cli.main(["train", str(ptq_file), "--data", str(tiny_data), *tail]) == 2
    assert capsys.readouterr().err == says


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("0.5", 0.5), ("3", 3), ("true", True), ("AdamW", "AdamW"), ("[0, 1]", [0, 1]), ("one", "one")],
)
def test_values_are_read_as_yaml_with_exponents(text, value):
    assert _value(text) == value
    assert type(_value(text)) is type(value)


def test_the_verdict_says_which_epoch_won():
    said = _verdict({"best_epoch": 2, "metric": "mAP50-95", "map5095": [0.35, 0.2, 0.3581]})
    assert said == "epoch 2 is the result: mAP50-95 35.81, +0.81 points on the 35.00 before"


@pytest.mark.parametrize(
    ("low", "words"),
    [(-0.2, "-0.20 to +1.50 on 128 images: chance alone may do that"), (0.1, "+0.10 to +1.50 on 128 images")],
)
def test_the_verdict_says_what_chance_may_do(low, words):
    gain = {"points": 0.81, "low": low, "high": 1.5, "images": 128}
    said = _verdict({"best_epoch": 1, "metric": "mAP50-95", "map5095": [0.35, 0.3581], "gain": gain})
    assert said == f"epoch 1 is the result: mAP50-95 35.81, +0.81 points on the 35.00 before (95 %: {words})"


def test_swapping_writes_a_float_detector(three, tmp_path, capsys):
    source = fxqat.save(three, tmp_path / "n.fxqat")
    assert cli.main(["swap", str(source), "--to", "relu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"wrote {tmp_path / 'n_relu.fxqat'}"
    assert said[1].startswith(f"it has to learn again: fxqat train {tmp_path / 'n_relu.fxqat'} --teacher {source}")
    assert fxqat.load(tmp_path / "n_relu.fxqat").source.architecture["activation"] == "nn.ReLU()"


def test_tensorboard_is_a_flag(ptq_file, tiny_data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main(["train", str(ptq_file), "--data", str(tiny_data), "--tensorboard"]) == 2
    assert "tensorboard is not installed; pip install tensorboard" in capsys.readouterr().err
