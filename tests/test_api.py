"""The verbs: their order, what they refuse, and what a user adds of his own."""

# ruff: noqa: E501  (one message a line, as it is printed)

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from detectors import write_onnx
from refusals import refusal
from torch import fx, nn
from ultralytics.utils import torch_utils

import fxqat
from fxqat import quant, training
from fxqat.evaluation.accuracy import evaluate
from fxqat.evaluation.predictor import Predictor, from_onnx
from fxqat.graph.pipeline import PassReport
from fxqat.graph.site import module_of, operation
from fxqat.passes.quant_graph import QuantGraph
from fxqat.policy.resources import find, shipped
from fxqat.quant.modules import QATConv2d

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_public_names_are_there_and_no_others():
    assert all(getattr(fxqat, name) is not None for name in fxqat.__all__)
    with pytest.raises(AttributeError, match="module 'fxqat' has no attribute 'prepair'"):
        fxqat.prepair  # noqa: B018


def test_rooms_give_the_names_that_they_say():
    for room in (quant, training):
        assert all(getattr(room, name).__name__ == name for name in room.__all__)
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            room.nothing  # noqa: B018


@pytest.mark.parametrize("room", [fxqat, quant, training])
def test_type_checkers_see_the_names_that_are_found_on_first_use(room):
    """A package says its names three times: to mypy, to ``import *`` and to the import on first use."""
    tree = ast.parse(Path(room.__file__).read_text())
    checked = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "__future__"]
    seen = {node.module: tuple(one.name for one in node.names) for node in checked}
    homes = {module: tuple(sorted(names)) for module, names in room._HOMES.items()}
    assert homes == {module: tuple(sorted(names)) for module, names in seen.items() if module in homes}
    public = sorted(name for names in homes.values() for name in names)
    assert sorted(room.__all__) == public == dir(room)


def test_the_package_says_that_it_is_typed():
    assert (Path(fxqat.__file__).parent / "py.typed").is_file()


# By the files of the first sketch of the project: what each of them was to define, and where it stands.
SKETCHED = {
    "fxqat.quant": [
        *("MinMaxObserver", "MovingAverageMinMaxObserver", "HistogramObserver"),
        *("FakeQuantize", "PerChannelFakeQuantize", "LSQFakeQuantize", "QConfig"),
        *("QATConv2d", "QATBatchNorm2d", "QATLinear", "QATReLU"),
    ],
    "fxqat.training": [
        *("Trainer", "QATTrainer", "create_trainer", "build_loss_function"),
        *("QATPenaltyLoss", "FocalLoss", "DistillationLoss", "QATLearningRateScheduler"),
        *("ModelCheckpoint", "EarlyStopping", "TensorBoardLogger", "ProgressiveQuantization"),
        "QuantizationErrorMonitor",
    ],
    "fxqat": ["get_critical_layers"],
}


@pytest.mark.parametrize("room", SKETCHED)
def test_names_of_the_sketch_are_found(room):
    assert set(SKETCHED[room]) <= set(importlib.import_module(room).__all__)


HEAVY = ("torch", "torchvision", "ultralytics", "onnx", "onnxruntime", "matplotlib", "cv2", "rich")


def heavy_after(code: str, *words: str) -> str:
    """Which of the slow libraries a process has imported after ``code``; it counts modules, not seconds."""
    code += f"; import sys; print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    told = [sys.executable, "-c", code, *words]
    return subprocess.run(told, capture_output=True, text=True, cwd=REPOSITORY, check=True).stderr


@pytest.mark.parametrize(
    "code", ["import fxqat, fxqat.errors", "import fxqat.quant, fxqat.training, fxqat.policy", "import fxqat.cli"]
)
def test_importing_costs_no_torch(code):
    assert heavy_after(code) == "[]\n"


def test_a_public_name_brings_what_it_needs():
    assert "torch" in heavy_after("import fxqat; fxqat.load"), "or the test above would see nothing"


def test_help_costs_no_torch():
    """Of all commands in one process: the lists in it come from code that needs no torch."""
    code = (
        "from fxqat.commands.parser import COMMANDS; from fxqat.commands.command_parser import CommandParser; "
        "[one.arguments(CommandParser(prog=one.name)) for one in COMMANDS]"
    )
    assert heavy_after(code) == "[]\n"


@pytest.mark.parametrize(
    ("verb", "stage", "words"),
    [
        ("prepare", "prepared", "is at stage qat; expected stage float for prepare"),
        ("calibrate", "yolov8n", "is at stage float; expected stage qat for calibrate; run fxqat prepare first"),
        ("calibrate", "converted", "is at stage int8; expected stage qat for calibrate; take the .fxqat it was converted from"),
        ("convert", "yolov8n", "is at stage float; expected stage qat for convert; run fxqat prepare first"),
        ("convert", "prepared", "was never calibrated; expected a calibrated .fxqat; run fxqat calibrate first"),
        ("verify", "converted", "is at stage int8; expected stage qat for verify; take the .fxqat it was converted from"),
    ],
)  # fmt: skip
def test_verbs_out_of_order(request, verb, stage, words):
    arguments = {"prepare": ["float"], "calibrate": [[]], "convert": [], "verify": ["a.onnx", []]}[verb]
    assert words in refusal(getattr(fxqat, verb), request.getfixturevalue(stage), *arguments)


def test_the_recipe_says_what_was_done(prepared, calibrated, converted):
    assert (prepared.recipe.stage, prepared.recipe.policy_name, prepared.recipe.target) == (
        "qat",
        "w8a8.yaml",
        "ort-cpu",
    )
    assert not prepared.recipe.calibration
    assert {key: calibrated.recipe.calibration[key] for key in ("data", "images")} == {"data": "tensors", "images": 4}
    assert converted.recipe.stage == "int8"


def test_calibrating_needs_images(yolov8n, tmp_path):
    qat, _ = fxqat.prepare(yolov8n, "critical")
    assert "saw no image" in refusal(fxqat.calibrate, qat, [])
    assert refusal(fxqat.calibrate, qat, tmp_path / "none.yaml")
    assert refusal(fxqat.calibrate, qat, tmp_path)
    assert "imgsz 100: is not a multiple of 32; use 96 or 128" in refusal(fxqat.calibrate, qat, tmp_path, imgsz=100)


SIZED = {
    "calibrate": lambda model, data: fxqat.calibrate(model, data, imgsz=96),
    "train": lambda model, data: fxqat.train(model, data, imgsz=96),
    "export": lambda model, data: fxqat.export(model.with_graph(model.gm, stage="int8"), "x.onnx", imgsz=96),
    "verify": lambda model, data: fxqat.verify(model, "x.onnx", data, imgsz=96),
    "retarget": lambda model, data: fxqat.retarget(model, "openvino", data, imgsz=96),
    "get_critical_layers": lambda model, data: fxqat.get_critical_layers(model, data, imgsz=96),
    "val": lambda model, data: evaluate(
        Predictor(name="p6", predict=model, names=dict(model.names), stride=model.stride), data, imgsz=96
    ),
}


@pytest.fixture(scope="module")
def p6():
    """A model of stride 64 that passes for a calibrated one: none of its values is looked at."""
    model, _ = fxqat.prepare(fxqat.load("yolov8n-p6.yaml", classes=3), "w8a8")
    return model.with_graph(model.gm, calibration={"images": 1})


@pytest.mark.parametrize("verb", SIZED)
def test_sizes_are_multiples_of_the_models_own_stride(p6, tiny_data, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(SIZED[verb], p6, tiny_data) == "imgsz 96: is not a multiple of 64; use 64 or 128"
    assert not list(tmp_path.iterdir())


def test_a_training_that_is_refused_leaves_torch_its_threads(p6, tiny_data, tmp_path, monkeypatch):
    """With fewer, later results of this process would differ in their last bits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch_utils, "NUM_THREADS", 1)  # what Ultralytics leaves a process of two cores
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        refusal(SIZED["train"], p6, tiny_data)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_file_says_its_stride(tmp_path):
    path = write_onnx(tmp_path / "p6.onnx", names="{0: 'a', 1: 'b', 2: 'c'}")
    file = onnx.load(path)
    for text, stride in (("64", 64), ("16", 32)):
        onnx.helper.set_model_props(file, {"stride": text})
        onnx.save(file, path)
        assert from_onnx(path).stride == stride
    onnx.helper.set_model_props(file, {"stride": "wide"})
    onnx.save(file, path)
    assert refusal(from_onnx, path) == f"{path}: its metadata 'stride' is 'wide'; expected a whole number of pixels"


def test_a_site_that_sees_nan_is_named(yolov8n):
    qat, _ = fxqat.prepare(yolov8n, "critical")
    next(one for one in qat.gm.modules() if isinstance(one, QATConv2d)).weight.data.fill_(torch.nan)
    assert refusal(fxqat.calibrate, qat, [torch.zeros(1, 3, 32, 32)]) == (
        "model.0.conv: NaN was observed; expected finite values; check the weights and the calibration images"
    )


def test_calibration_reads_a_data_set_and_counts(yolov8n, tiny_data):
    qat, _ = fxqat.prepare(yolov8n, "critical")
    seen = []
    qat = fxqat.calibrate(qat, tiny_data, imgsz=64, images_limit=5, batch=2, progress=lambda *now: seen.append(now))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert {key: qat.recipe.calibration[key] for key in ("data", "images", "imgsz")} == {
        "data": "tiny.yaml",
        "images": 5,
        "imgsz": 64,
    }


def test_calibration_is_repeatable(yolov8n, calibrated, images):
    again = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images])
    state = calibrated.gm.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.gm.state_dict().items())


def test_calibrating_again_forgets_what_was_seen_before(yolov8n, calibrated, images, tmp_path):
    """In memory, from a file, and after a calibration that was refused: the newest data decide every range."""
    wanted = calibrated.gm.state_dict()
    wide = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images.flip(3).square()])
    assert not equal(wide.gm.state_dict(), wanted)
    path = fxqat.save(wide, tmp_path / "wide.fxqat")
    assert equal(fxqat.calibrate(wide, [images]).gm.state_dict(), wanted)
    assert equal(fxqat.calibrate(fxqat.load(path), [images]).gm.state_dict(), wanted)


def test_a_refused_calibration_leaves_every_range(yolov8n, images):
    qat = fxqat.calibrate(fxqat.prepare(yolov8n, "w8a8")[0], [images])
    before = {site: (float(one.scale), int(one.zero_point)) for site, one in QuantGraph(qat.gm).quantizers().items()}
    layer = next(one for one in qat.gm.modules() if isinstance(one, QATConv2d))
    bias, layer.bn.bias = layer.bn.bias, nn.Parameter(torch.full_like(layer.bn.bias, torch.nan))
    assert "NaN was observed" in refusal(fxqat.calibrate, qat, [images])
    assert {
        site: (float(one.scale), int(one.zero_point)) for site, one in QuantGraph(qat.gm).quantizers().items()
    } == before
    layer.bn.bias = bias
    fxqat.calibrate(qat, [images])
    assert {
        site: (float(one.scale), int(one.zero_point)) for site, one in QuantGraph(qat.gm).quantizers().items()
    } == before


def equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_an_operation_outside_the_vocabulary_is_named(yolov8n):
    @dataclass(frozen=True, kw_only=True)
    class Odd:
        name: str = "odd"
        gives: None = None

        def __call__(self, gm: fx.GraphModule) -> PassReport:
            node = next(one for one in gm.graph.nodes if operation(one) == "Upsample")
            gm.add_submodule(str(node.target), nn.GELU())
            return PassReport()

    words = refusal(fxqat.prepare, yolov8n, "critical", passes=[Odd()])
    assert words.startswith(
        "model.10: the operation GELU is outside the vocabulary of target ort-cpu; expected one of: "
    )


@dataclass(frozen=True, kw_only=True)
class SwapActivation:
    """A user's pass: every fused SiLU becomes a ReLU."""

    name: str = "swap_activation"
    gives: None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Swap."""
        fused = [m for m in gm.modules() if isinstance(m, QATConv2d) and isinstance(m.activation, nn.SiLU)]
        for module in fused:
            module.activation = nn.ReLU()
        return PassReport(says=f"{len(fused)} activations swapped", figures={"swapped": len(fused)})


def test_a_pass_of_ones_own_runs_on_the_fused_graph(yolov8n):
    qat, report = fxqat.prepare(yolov8n, "float", passes=[SwapActivation()])
    assert report["swap_activation"].report.says == "57 activations swapped"
    assert not any(isinstance(m, nn.SiLU) for m in qat.gm.modules())
    assert any(isinstance(module_of(node), QATConv2d) for node in qat.gm.graph.nodes if node.op == "call_module")
    assert "swap_activation" in [done.name for done in qat.recipe.passes]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("FUSE = 1 +", "does not run (SyntaxError: "),
        ("import no_such_thing", "does not run (ModuleNotFoundError: No module named 'no_such_thing')"),
        ("RULES = ()", "defines no rules; expected a tuple FUSE, LOWER or PASSES, or a dict QUANTIZE by target"),
        ("FUSE = (len,)", "<built-in function len> is no rule; expected functions decorated with @rule"),
    ],
)
def test_a_rule_file_that_is_none(yolov8n, tmp_path, content, words):
    path = tmp_path / "mine.py"
    path.write_text(content)
    assert words in refusal(fxqat.prepare, yolov8n, "float", patterns=[path])


def test_a_rule_file_that_is_missing(yolov8n):
    assert "fusee: no such file; expected a path or one of: fuse, " in refusal(
        fxqat.prepare, yolov8n, "float", patterns=["fusee"]
    )


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        find("policies", "float") == find("policies", "policies/float.yaml") == REPOSITORY / "policies" / "float.yaml"
    )
    assert {"fuse", "quantize", "lower"} <= set(shipped("patterns"))


@pytest.mark.slow
def test_the_wheel_carries_rules_and_policies(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("fxqat-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        file.extractall(tmp_path / "unzipped")
    for folder, suffix in (("patterns", ".py"), ("policies", ".yaml")):
        ours = {f"fxqat/_shipped/{folder}/{path.name}" for path in (REPOSITORY / folder).glob(f"*{suffix}")}
        assert ours
        assert ours <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "bench/", "patterns/"))]
    code = "import fxqat; from fxqat.policy.resources import find; from fxqat.passes import Rules; "
    code += "print(find('policies', 'w8a8')); print(len(Rules.load().fuse)); print(fxqat.Policy.load('float').name)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={
            "PYTHONPATH": str(tmp_path / "unzipped"),
            "YOLO_OFFLINE": "1",
            "YOLO_CONFIG_DIR": str(tmp_path),
            "PATH": "",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found, rules, policy = done.stdout.splitlines()
    assert found == str(tmp_path / "unzipped" / "fxqat" / "_shipped" / "policies" / "w8a8.yaml")
    assert (rules, policy) == (str(len(fxqat.passes.Rules.load().fuse)), "float.yaml")
