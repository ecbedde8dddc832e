"""The command line as a user meets it: the chain on a tiny data set, and every refusal as one line with exit code 2."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from commands import refused, said
from small_networks import write

import fxqat
from fxqat.cli import main
from fxqat.commands.command import Command, default_name
from fxqat.commands.parser import COMMANDS, command_line
from fxqat.policy import Policy
from fxqat.policy.resources import find
from fxqat.targets import TARGETS

SIZE = ["--imgsz", "64"]
BY_NAME = {command.name: command for command in COMMANDS}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the chain ran once: tiny.fxqat, tiny_ptq.fxqat, tiny_int8.fxqat, tiny_int8.onnx."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOv8 of four blocks and 3 classes: torch.onnx takes a second for each of yolov8n's layers."""
    return Path(write(tmp_path_factory.mktemp("small"), "yolov8n"))


@pytest.fixture(scope="module")
def chain(workshop: Path, tiny_data: Path, small: Path) -> Path:
    tiny = str(workshop / "tiny.fxqat")  # of what fxqat run makes by default, whose export is the same
    assert main(["prepare", str(small), "--policy", "critical", "-o", tiny]) == 0
    assert main(["calibrate", tiny, "--data", str(tiny_data), "--images", "4", *SIZE, "-q"]) == 0
    assert main(["convert", str(workshop / "tiny_ptq.fxqat")]) == 0
    assert main(["export", str(workshop / "tiny_int8.fxqat"), *SIZE]) == 0
    return workshop


def test_the_chain_writes_what_it_says(chain: Path) -> None:
    names = {"tiny.fxqat", "tiny_ptq.fxqat", "tiny_int8.fxqat", "tiny_int8.onnx"}
    assert names == {path.name for path in chain.iterdir()}


def test_val_compares_any_mix(chain: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(chain / name) for name in ("tiny_ptq.fxqat", "tiny_int8.fxqat", "tiny_int8.onnx")]
    found = chain.parent / "val.json"
    out = said(capsys, "val", *models, "--data", str(tiny_data), *SIZE, "-q", "--json", str(found))
    assert out.splitlines()[0].split() == [
        *("model", "mAP50-95", "mAP50", "precision", "recall"),
        *("drift,", "points", "[95", "%]", "MB", "ms"),
    ]
    rows = json.loads(found.read_text())
    assert [row["model"] for row in rows] == ["tiny_ptq.fxqat", "tiny_int8.fxqat", "tiny_int8.onnx"]
    assert rows[0]["drift"] is None
    assert rows[2]["drift"]["low"] <= rows[2]["drift"]["points"] <= rows[2]["drift"]["high"]
    assert all(row["milliseconds"] > 0 and row["megabytes"] > 0 for row in rows)


def test_verify_finds_every_code_equal(chain: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = chain.parent / "verify.json"
    onnx, data = str(chain / "tiny_int8.onnx"), str(tiny_data)
    words = ["--onnx", onnx, "--data", data, "--images", "2", *SIZE, "-q", "--json", str(found)]
    out = said(capsys, "verify", str(chain / "tiny_ptq.fxqat"), *words)
    assert "reference / ONNX Runtime: every code equal" in out
    assert json.loads(found.read_text())["totals"]["reference_runtime"]["differing"] == 0


@pytest.mark.slow
def test_verify_exports_for_the_occasion(chain: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(tiny_data), "--images", "1", *SIZE, "-q"]
    assert "every code equal" in said(capsys, "verify", str(chain / "tiny_ptq.fxqat"), *words)


def test_what_was_calibrated_decides_the_size_and_a_line_says_where_another_is_given(
    chain: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ptq = str(chain / "tiny_ptq.fxqat")
    for words, side in (([], 64), (["--imgsz", "96"], 96)):
        path = tmp_path / f"{side}.onnx"
        assert main(["export", ptq, "-o", str(path), *words]) == 0
        assert [size.dim_value for size in onnx.load(path).graph.input[0].type.tensor_type.shape.dim[2:]] == [side] * 2
        noted = "" if side == 64 else "fxqat: calibrated at 64 pixels, used at 96\n"
        assert noted in capsys.readouterr().err
    tail = ["--data", str(tiny_data), "--images", "3", "-q"]
    assert "every code equal" in said(capsys, "verify", ptq, "--onnx", str(path), *tail)
    assert said(capsys, "val", ptq, "--data", str(tiny_data), "--images", "2", "-q").splitlines()[1].split()[0] == (
        "tiny_ptq.fxqat"
    )


def test_verify_fills_the_batch_that_a_file_takes(
    chain: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six images through files of four at a time: a full batch, and one that is filled up."""
    ptq, four = str(chain / "tiny_ptq.fxqat"), str(tmp_path / "four.onnx")
    assert main(["export", ptq, "-o", four, "--batch", "4"]) == 0
    tail = ["--data", str(tiny_data), "--images", "6", "-q"]
    given = said(capsys, "verify", ptq, "--onnx", four, *tail)
    made = said(capsys, "verify", ptq, "--batch", "4", *tail)
    assert "every code equal" in given
    assert "6 images" in given
    assert given == made


@pytest.mark.usefixtures("quick_timing")
def test_run_is_the_whole_job(tmp_path: Path, tiny_data: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a folder and of a model with names that the shell and the stages' names would trip over; every printed
    command is the one that was run."""
    folder, source, record = tmp_path / "my results", tmp_path / "best_int8.yaml", tmp_path / "my results" / "run.json"
    source.write_text(small.read_text())
    words = ["--data", str(tiny_data), "--images", "4", "--val", "2", *SIZE, "-o", str(folder), "-q"]
    out = said(capsys, "run", str(source), *words, "--json", str(record))
    commands = [shlex.split(line)[2:] for line in out.splitlines() if line.startswith("$ fxqat")]
    assert [words[0] for words in commands] == ["prepare", "calibrate", "export", "report"]
    assert [command_line(words).run for words in commands] == [BY_NAME[words[0]].run for words in commands]
    names = {"best-int8.fxqat", "best-int8_ptq.fxqat", "best-int8_int8.onnx", "best-int8_int8.html"}
    assert {path.name for path in folder.iterdir()} == {*names, record.name}
    found = json.loads(record.read_text())
    assert found["file"] == "best-int8_int8.onnx"
    assert found["codes"]["differing"] == 0
    assert found["latency"]["path"] == "best-int8_int8.onnx"
    assert found["verdict"]["level"] == "open", "two images are no measure"
    assert f"decision: {found['verdict']['advice']}\n" in out
    assert out.endswith(f"next: {found['next']}\n")
    before = graph_bytes(folder / "best-int8_int8.onnx")
    assert main(commands[2]) == 0
    assert graph_bytes(folder / "best-int8_int8.onnx") == before


def test_run_trains_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that the steps are given; what each does has tests of its own."""
    given: list[list[str]] = []
    content = SimpleNamespace(verdict=SimpleNamespace(sites=("model.0.conv",), action="keep layers in float"))

    def recorded(command: Command, *words: object, **options: object) -> object:
        given.append([command.name, *map(str, words)])
        return {"export": tmp_path / "n_qat_int8.onnx", "report": content}.get(command.name)

    monkeypatch.setattr("fxqat.commands.run.step", recorded)
    assert main(["run", "n.pt", "--data", "d.yaml", "--train", "--epochs", "2", "-o", str(tmp_path), "-q"]) == 0
    ptq, qat = str(tmp_path / "n_ptq.fxqat"), str(tmp_path / "n_qat.fxqat")
    assert [words[0] for words in given] == ["prepare", "calibrate", "train", "export", "report"]
    assert given[2] == ["train", ptq, "--data", "d.yaml", "--epochs", "2", "-o", qat]
    assert given[3] == ["export", qat]
    assert given[4][1] == qat
    assert [command_line(words).run for words in given] == [BY_NAME[words[0]].run for words in given]
    policy = Policy.load(tmp_path / "n_floats.yaml")
    assert (policy.rules[0].site, policy.rules[0].weight) == ("model.0.conv", None)


def graph_bytes(path: Path) -> bytes:
    return onnx.load(path).graph.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("source", "tail", "name"),
    [
        ("runs/best.pt", ".fxqat", "runs/best.fxqat"),
        ("best_qat.pt", ".fxqat", "best-qat.fxqat"),
        ("best-qat.fxqat", "_ptq.fxqat", "best-qat_ptq.fxqat"),
        ("best_int8.pt", ".onnx", "best-int8.onnx"),
        ("best_ptq.yaml", ".fxqat", "best-ptq.fxqat"),
        ("n.fxqat", "_ptq.fxqat", "n_ptq.fxqat"),
        ("n_ptq.fxqat", "_ptq.fxqat", "n_ptq.fxqat"),
        ("n_ptq.fxqat", "_int8.fxqat", "n_int8.fxqat"),
        ("n_int8.fxqat", "_int8.onnx", "n_int8.onnx"),
        ("n_ptq.fxqat", "_qat.fxqat", "n_qat.fxqat"),
        ("n_qat.fxqat", "_int8.fxqat", "n_qat_int8.fxqat"),
        ("n_qat_int8.fxqat", "_int8.onnx", "n_qat_int8.onnx"),
        ("n_qat.fxqat", "_ptq.fxqat", "n_qat_ptq.fxqat"),
        ("n_qat.fxqat", "_qat.fxqat", "n_qat_qat.fxqat"),
    ],
)
def test_output_names_tell_stages_apart(source: str, tail: str, name: str) -> None:
    assert default_name(source, tail) == name


@pytest.mark.parametrize("command", ["prepare", "calibrate", "convert", "export", "train", "swap", "retarget"])
def test_the_suffix_of_an_output_is_refused_before_the_model_is_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "prepare": ["--policy", "float"],
        "calibrate": ["--data", "x"],
        "train": ["--data", "x"],
        "retarget": ["--target", "openvino"],
    }
    suffix = ".onnx or .tflite" if command == "export" else ".fxqat"
    target = tmp_path / "res.pt"
    line = refused(capsys, command, "none.fxqat", *words.get(command, []), "-o", str(target))
    assert line == f"fxqat: {target}: ends in '.pt'; expected a name that ends in {suffix}\n"


def test_a_number_of_classes_is_for_an_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail = ["--policy", "float", "-o", str(tmp_path / "x.fxqat")]
    line = "fxqat: classes: best.pt has its own; expected a number of classes for an architecture alone\n"
    assert refused(capsys, "prepare", "best.pt", "--classes", "3", *tail) == line
    line = "fxqat: classes: 0; expected 1 or more\n"
    assert refused(capsys, "prepare", "yolov8n.yaml", "--classes", "0", *tail) == line


MINE = """
from dataclasses import dataclass
from fxqat import PassReport

@dataclass(frozen=True, kw_only=True)
class Look:
    word: str = "seen"
    name: str = "look"
    gives: None = None

    def __call__(self, gm):
        return PassReport(says=self.word)

PASSES = (Look,)
"""


def test_passes_are_given_as_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine, path = tmp_path / "mine.py", tmp_path / "swapped.fxqat"
    mine.write_text(MINE)
    words = ["prepare", "yolov8n.yaml", "--classes", "2", "--policy", "float", "--patterns", str(mine), "-o", str(path)]
    text = "swap_activation{sites=model.0.**,to=relu},look{word=there}"
    out = said(capsys, *words, "--passes", text, "--print-passes")
    assert "\n+model.0.conv = QATConv2d(images) 3->16 k3 s2 BatchNorm2d QATReLU\n" in out
    assert re.search(r"^swap_activation .* 1 SiLU are relu now$", out, re.MULTILINE)
    assert re.search(r"^look .* there$", out, re.MULTILINE)
    passes = {one.name: one.options for one in fxqat.load(path).recipe.passes}
    assert passes["swap_activation"] == {"sites": "model.0.**", "to": "relu"}
    assert passes["look"] == {"word": "there"}
    path.unlink()
    assert "did you mean 'swap_activation'?" in refused(capsys, *words, "--passes", "swap_activaton{to=relu}")
    assert not path.exists()


def test_sites_names_what_a_policy_can_select(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "sites", "yolov8n.yaml").splitlines()
    assert lines[1].split() == ["model.0.conv", "QATConv2d", "backbone", "first_conv"]
    assert any(line.split() == ["model.22.dfl.softmax", "softmax", "dfl", "head"] for line in lines)


def test_explain_shows_line_reason_and_share(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "explain", "yolov8n.yaml", "--policy", "critical", "model.22.cv2.0.*")
    assert "model.22.cv2.0.2" in out
    assert "role: box_out" in out
    assert "(box logits: these and the class logits carry most of the loss in mAP)" in out
    assert out.splitlines()[-1].startswith("97.97% of 4.37 billion multiply-adds")


def test_explain_counts_integers_whatever_the_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shares = set()
    for target in TARGETS:
        policy = tmp_path / f"{target}.yaml"
        policy.write_text(re.sub(r"target: \S+", f"target: {target}", find("policies", "critical").read_text()))
        out = said(capsys, "explain", "yolov8n.yaml", "--policy", str(policy), "model.0.*")
        shares.add(out.splitlines()[-1])
    assert len(shares) == 1, "a layer that reads integers is one, whatever is rounded after it"
    assert not shares.pop().startswith("0.00%")


def test_text_diff_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert "model.0.conv = Conv2d(images)" in said(capsys, "text", "yolov8n.yaml")
    assert "+model.0.conv = QATConv2d(images)" in said(capsys, "diff", "yolov8n.yaml", "fuse")
    out = said(capsys, "why-not", "silu_as_sigmoid_and_mul", "yolov8n.yaml", "model.22.cv2.0.2")
    assert "model.22.cv2.0.2: model.22.cv2.0.2 its activation is not SiLU" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prepare", "none.pt", "--policy", "float"], "fxqat: none.pt: no such file; expected a .pt checkpoint"),
        (["prepare", "yolov8n.yaml", "--policy", "yolov8_critcal"], "did you mean 'critical'?"),
        (["calibrate", "n.fxqat"], "fxqat calibrate: the following arguments are required: --data"),
        (["explain", "yolov8n.yaml", "--policy", "float", "model.99.*"], "fxqat: model.99.*: covers no site"),
        (["why-not", "conv_bn_sulu", "yolov8n.yaml"], "did you mean 'conv_bn_silu'?"),
        (
            ["prepare", "yolov8n.yaml", "--policy", "float", "-o", "/no/such/folder/x.fxqat"],
            "its folder does not exist",
        ),
        (["val", "yolov8n.yaml", "--data", "nowhere.yaml", "-q"], "nowhere.yaml"),
        (
            ["calibrate", "none.fxqat", "--data", "x"],
            "none.fxqat: no such file; expected a .fxqat file; make it with fxqat prepare",
        ),
        (["export", "n_ptq.fxqat"], "n_ptq.fxqat: no such file; expected a .fxqat file; make it with fxqat calibrate"),
        (["export", "n_qat.fxqat"], "n_qat.fxqat: no such file; expected a .fxqat file; make it with fxqat train"),
        (["verify", "x.fxqat", "--data", "x", "--images", "0"], "--images: 0; expected 1 or more"),
        (["dance"], "invalid choice: 'dance'"),
        (["sites", "yolov8n.yaml", "--frist"], "unrecognized arguments: --frist"),
    ],
)
def test_bad_input_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in refused(capsys, *words)


@pytest.mark.parametrize("command", ["prepare", "explain"])
@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("qat: {epoch: 3}", "own.yaml:3: unknown option 'epoch'; did you mean 'epochs'?"),
        ("corrections: [equalise]", "own.yaml:3: unknown correction 'equalise'; expected one of: equalize"),
    ],
)
def test_sections_of_later_commands_are_checked_before_the_model_is_read(
    command: str, section: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(f"version: 1\nextends: w8a8\n{section}\n")
    assert line in refused(capsys, command, "none.pt", "--policy", str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    "words",
    [
        *(
            ("sensitivity", "none.fxqat", "--work"),
            ("search", "none.pt", "--work"),
            ("analyze", "none.fxqat", "--plots"),
        ),
        ("run", "none.pt", "-o"),
        ("demo", "-o"),
    ],
)
def test_folders_are_refused_before_the_model_is_read(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    data = ["--data", "none.yaml"] if words[0] != "demo" else []
    line = refused(capsys, *words, str(tmp_path / "taken" / "in"), *data)
    assert line == f"fxqat: {tmp_path / 'taken'}: is no folder; expected a folder; choose another\n"


def test_the_folder_of_tensorboards_events_is_refused_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "x" / "tensorboard"
    taken.parent.mkdir()
    taken.write_text("")
    words = ("train", "none.fxqat", "--data", "none.yaml", "-o", str(tmp_path / "x.fxqat"), "--tensorboard")
    assert refused(capsys, *words) == f"fxqat: {taken}: is no folder; expected a folder; choose another\n"


@pytest.mark.parametrize(
    "words",
    [
        *(("analyze", "--csv"), ("analyze", "--json"), ("report", "--json"), ("verify", "--json"), ("drift", "--json")),
        *(("sensitivity", "--json"), ("search", "--json"), ("val", "--json"), ("train", "--json")),
    ],
)
def test_files_beside_the_output_are_refused_before_the_model_is_read(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "x.json"
    line = refused(capsys, words[0], "none.fxqat", "--data", "none.yaml", words[1], str(file))
    assert line.startswith(f"fxqat: {file}: its folder does not exist; ")


def test_refusals_on_real_files_write_nothing(
    chain: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh, target = str(chain / "tiny.fxqat"), str(tmp_path / "out.fxqat")
    line = f"fxqat: {fresh}: was never calibrated; expected a calibrated .fxqat; run fxqat calibrate first\n"
    for words in (("convert", fresh, "-o", target), ("val", fresh, "--data", str(tiny_data), "-q")):
        assert refused(capsys, *words) == line
    assert "multiple of 32" in refused(
        capsys, "calibrate", fresh, "--data", str(tiny_data), "--imgsz", "50", "-o", target
    )
    assert "is at stage int8" in refused(
        capsys, "calibrate", str(chain / "tiny_int8.fxqat"), "--data", str(tiny_data), *SIZE, "-o", target, "-q"
    )
    assert not list(tmp_path.iterdir())
