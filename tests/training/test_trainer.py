"""Whole trainings of a tiny detector: what is kept, what is refused, and that cutting one off changes nothing."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal

import fxqat
from fxqat.data import images
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import evaluate
from fxqat.evaluation.predictor import Predictor, from_onnx
from fxqat.files import locked
from fxqat.passes.absorb_norms import normed
from fxqat.passes.learn_scales import learned_scales
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import LSQFakeQuantize
from fxqat.quant.modules import QATConv2d
from fxqat.runtime.integer_model import executed, predictor
from fxqat.training import create_trainer, resume_state
from fxqat.training.config import configure
from fxqat.training.qat_trainer import QATTrainer
from fxqat.training.trainer import Trainer
from fxqat.training.ultralytics_model import Trainee

REPOSITORY = Path(__file__).resolve().parents[2]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    found = resume_state.read(path)
    groups = {"model": found.model, "average": found.average, "kept": found.kept, "optimizer": found.optimizer[0]}
    return {f"{group}/{name}": one for group, those in groups.items() for name, one in those.items()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def same_state(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if bits(ours[name]).ne(bits(theirs[name])).any()]
    assert different == []
    assert resume_state.read(one).history == resume_state.read(other).history


def test_the_best_epoch_is_the_result(trainer, ptq, scripted):
    scripted(0.2, 0.3, 0.25)
    run = trainer("best", lsq=True, lr0=1e-3)
    assert isinstance(run, QATTrainer)
    run.train()
    best = run.result()
    assert best.recipe.training["best_epoch"] == 1
    assert best.recipe.training["map5095"] == [0.2, 0.3, 0.25]
    assert best.recipe.calibration == ptq.recipe.calibration
    kept, final = best.gm.state_dict(), resume_state.read(run.state_file).average
    assert any(not torch.equal(kept[name], final[name]) for name in final)
    moved = [name for name, one in ptq.gm.state_dict().items() if not torch.equal(one, kept[name])]
    assert any(name.startswith("quantizer.") and name.endswith(".scale") for name in moved)
    assert any(name.endswith("conv.weight") for name in moved)
    assert not any("running_" in name for name in moved)  # batch norms are frozen


def test_where_no_epoch_is_better_the_result_is_what_was_given(trainer, ptq, scripted):
    scripted(0.2, 0.1, 0.2)
    run = trainer("worse", lr0=1e-2)
    run.train()
    best = run.result()
    assert best.recipe.training["best_epoch"] == 0
    given = ptq.gm.state_dict()
    assert all(torch.equal(given[name], one) for name, one in best.gm.state_dict().items())


def test_the_result_is_saved_converted_and_verified(trainer, scripted, tmp_path, images):
    scripted(0.2, 0.3)
    run = trainer("file", epochs=1, unlabelled=True, lsq=True)
    run.train()
    path = fxqat.save(run.result(), tmp_path / "x_qat.fxqat")
    again = fxqat.load(path)
    assert again.recipe.training["best_epoch"] == 1
    with torch.no_grad():
        assert torch.equal(again(images)[0], run.result()(images)[0])
        expected, found = run.result()(images)[0], fxqat.convert(again)[0](images)[0]
    # one code of the widest box logit is the most that two routes of the same arithmetic may part; see deploy's tests
    assert float((expected - found).abs().max()) <= 64


def test_a_float_detector_is_trained_as_it_is(trainer, three, scripted):
    scripted(0.1, 0.2)
    run = trainer("float", detector=three, epochs=1, freeze_bn=1.0, lr0=1e-3)
    assert isinstance(run, Trainer)
    assert not isinstance(run, QATTrainer)
    run.train()
    moved = run.result().gm.state_dict()
    assert any(
        "running_mean" in name and not torch.equal(one, moved[name]) for name, one in three.gm.state_dict().items()
    )


def test_validation_measures_the_given_detector_first(trainer, tiny_data, ptq):
    run = trainer("measured", epochs=1)
    run.train()
    assert [row["epoch"] for row in run.history] == [0, 1]
    measured = evaluate(Predictor.of(ptq, predictor(ptq)), tiny_data, imgsz=64)
    assert run.history[0]["map5095"] == pytest.approx(measured.map5095, abs=1e-5)  # Ultralytics gives 5 decimals
    assert {"box_loss", "cls_loss", "dfl_loss", "lr"} <= run.history[1].keys()


def same_boxes(boxes: torch.Tensor, wanted: torch.Tensor) -> None:
    # all codes are equal, so only the decode in float32 differs: a few ulp of 1, and see test_onnx.py
    assert (boxes[:, 4:] - wanted[:, 4:]).abs().max() <= 4 * 2**-23
    assert (boxes[:, :4] - wanted[:, :4]).abs().max() <= 2 * 32 * 16 * 15 * 2**-23


@pytest.mark.parametrize("way", ["integers", "file"])
def test_validation_sees_what_the_exported_file_computes(trainer, ptq, monkeypatch, tmp_path, way):
    monkeypatch.setattr("fxqat.training.validation_runtime.WORTH_AN_EXPORT", {"ort": 0 if way == "file" else 10**9})
    heard: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = Trainee.forward

    def listening(trainee: Trainee, batch: Any, **ignored: Any) -> Any:
        found = forward(trainee, batch, **ignored)
        if not trainee.training:
            heard.append((batch, found))
        return found

    monkeypatch.setattr(Trainee, "forward", listening)
    run = trainer("executed", epochs=1, lr0=1e-3, lsq=True)
    run.train()
    images, boxes = heard[0]
    given = executed(ptq)
    assert given is not None
    assert torch.equal(boxes, given.run(images)) is (way == "integers")
    same_boxes(boxes, given.run(images))  # not yet what training made of its batch norms and scales
    images, boxes = heard[-1]
    file = from_onnx(fxqat.export(run.ema.ema.detector, tmp_path / "average.onnx", imgsz=64))
    same_boxes(boxes, file(images))


def test_learned_scales_have_a_group_of_their_own(trainer, scripted):
    scripted(0.2, 0.1)
    run = trainer("groups", epochs=1, lsq=True, scale_rate=3.0, lr0=1e-4, weight_decay=0.01)
    run.train()
    groups = {group["param_group"]: group for group in run.optimizer.param_groups}
    assert groups["scale"]["initial_lr"] == pytest.approx(3e-4)
    assert groups["scale"]["weight_decay"] == 0
    scales = [one for one in run.trainee.modules() if isinstance(one, LSQFakeQuantize)]
    assert len(groups["scale"]["params"]) == len(scales) == len(learned_scales(run.trainee))
    every = [id(one) for group in run.optimizer.param_groups for one in group["params"]]
    factors = [layer.bn.weight for layer in normed(run.trainee)]
    assert len(every) == len(set(every)) == len(list(run.trainee.parameters())) - len(factors)
    assert not any(
        factor.requires_grad for factor in factors
    )  # absorbed by the weights: their rate is one and the same


def test_batch_norms_freeze_after_their_share(trainer, scripted):
    scripted(0.2, 0.1, 0.1)
    seen: list[set[bool]] = []

    class Watch:
        def on_train_batch_end(self, running: Trainer) -> None:
            layers = [one for one in running.trainee.modules() if isinstance(one, QATConv2d) and one.bn is not None]
            seen.append({layer.bn.training for layer in layers})

    trainer("norms", freeze_bn=0.5, callbacks=[Watch()]).train()
    assert seen == [{True}, {True}, {False}, {False}]


def test_ranges_are_observed_anew_until_they_freeze(trainer, scripted):
    scripted(0.2, 0.1, 0.1, 0.1)
    seen: list[float] = []

    class Spoil:
        def on_train_batch_start(self, running: Trainer) -> None:
            scale = QuantGraph(running.trainee.detector.gm).quantizers()["model.1.conv.silu"].scale
            seen.append(float(scale))
            scale.fill_(123.0)

    run = trainer("ranges", epochs=3, freeze_observers=0.5, callbacks=[Spoil()])
    right = float(QuantGraph(run.given.gm).quantizers()["model.1.conv.silu"].scale)
    run.train()
    # two batches an epoch; observed on the images of the calibration, with the layers before it spoiled by none
    assert seen[1::2] == [123.0] * 3
    assert seen[2] == pytest.approx(right, rel=0.1)
    assert seen[4] == 123.0


class Cut:
    """Ends a training in the middle of its second epoch."""

    def on_train_batch_end(self, running: Trainer) -> None:
        if running.epoch == 1:
            raise KeyboardInterrupt


def test_resuming_continues_to_the_same_bits(trainer, tmp_path, scripted):
    options = {"lsq": True, "distill": 1.0, "penalty": 0.1, "lr0": 1e-3, "fliplr": 0.5}
    scripted(0.1, 0.3, 0.2)
    trainer("whole", **options).train()
    scripted(0.1, 0.3, 0.2)
    with pytest.raises(KeyboardInterrupt):
        trainer("cut", callbacks=[Cut()], **options).train()
    assert resume_state.read(tmp_path / "cut/weights/state.safetensors").epochs_done == 1
    scripted(0.2)
    again = trainer("cut", resume=True, **options)
    again.train()
    same_state(tmp_path / "whole/weights/state.safetensors", tmp_path / "cut/weights/state.safetensors")
    assert again.best_epoch == 1
    finished = trainer("cut", resume=True, **options)
    finished.train()  # nothing is left to do
    assert finished.result().recipe.training["map5095"] == [0.1, 0.3, 0.2]


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[4]))
from fxqat.models.environment import environment
os.environ.update(environment(Path(sys.argv[5])))
import fxqat
from tests.training.conftest import build

class Kill:
    def on_train_batch_end(self, running):
        if running.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

build(fxqat.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), callbacks=[Kill()], lsq=True, lr0=1e-3).train()
"""


def test_a_killed_training_continues_to_the_same_bits(trainer, ptq, tiny_data, tmp_path):
    fxqat.save(ptq, tmp_path / "ptq.fxqat")
    threads = str(torch.get_num_threads())
    arguments = [tmp_path / "ptq.fxqat", tiny_data, tmp_path / "killed", threads, tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    reloaded = fxqat.load(tmp_path / "ptq.fxqat")
    trainer("killed", detector=reloaded, resume=True, lsq=True, lr0=1e-3).train()
    trainer("whole", detector=reloaded, lsq=True, lr0=1e-3).train()
    same_state(tmp_path / "whole/weights/state.safetensors", tmp_path / "killed/weights/state.safetensors")


def poison_weight(running: Trainer) -> None:
    conv = next(one for one in running.trainee.modules() if isinstance(one, QATConv2d))
    conv.weight.data.fill_(torch.nan)


def poison_loss(running: Trainer) -> None:
    running.trainee.criterion.parts = (lambda seen: {"nan": seen.raw["boxes"].sum() * torch.nan},)


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        (poison_loss, "the loss is nan"),
        (poison_weight, r"weights are no numbers any more \(model.0.conv: NaN was observed\)"),
    ],
)
def test_what_is_no_number_stops_with_its_place(trainer, tmp_path, scripted, poison, what):
    scripted(0.1, 0.2)

    class Poison:
        def on_train_batch_start(self, running: Trainer) -> None:
            if running.epoch == 1:
                poison(running)

    said = rf"epoch 2, update 3: {what}; the widest range is .*, at .*; lower lr0 \(2e-06\).*epochs up to 1 are kept"
    with pytest.raises(Problem, match=said):
        trainer("nan", callbacks=[Poison()]).train()
    good = resume_state.read(tmp_path / "nan/weights/state.safetensors")
    assert good.epochs_done == 1
    assert all(bool(torch.isfinite(one).all()) for name, one in good.kept.items() if name.endswith("weight"))


class TestRefusals:
    def test_an_uncalibrated_detector(self, trainer, three):
        with pytest.raises(Problem, match=r"yolov8n.yaml: was never calibrated; .*run fxqat calibrate first"):
            trainer("x", detector=fxqat.prepare(three, "w8a8")[0])

    def test_an_integer_detector(self, trainer, ptq):
        with pytest.raises(Problem, match=r"is at stage int8; expected stage qat for train"):
            trainer("x", detector=fxqat.convert(ptq)[0])

    def test_other_classes(self, trainer, calibrated):
        with pytest.raises(Problem, match=r"tiny.yaml: has 3 classes, yolov8n.yaml predicts 80"):
            trainer("x", detector=calibrated)

    def test_images_without_a_val_split(self, ptq, tiny_data):
        with pytest.raises(Problem, match="has no val split to choose the best epoch by"):
            fxqat.train(ptq, tiny_data.parent / "images" / "val")

    def test_an_image_size(self, trainer):
        with pytest.raises(Problem, match="imgsz 65: is not a multiple of 32; use 64 or 96"):
            trainer("x", imgsz=65)

    def test_a_quantized_teacher(self, ptq, tiny_data):
        with pytest.raises(Problem, match="is at stage qat; expected a float teacher"):
            fxqat.train(ptq, tiny_data, teacher=ptq, unlabelled=True)

    def test_a_teacher_of_other_classes(self, ptq, yolov8n, tiny_data):
        with pytest.raises(Problem, match="its classes are not those of the detector to train"):
            fxqat.train(ptq, tiny_data, teacher=yolov8n, unlabelled=True)

    def test_weights_that_can_no_longer_teach(self, ptq, tiny_data):
        trained = ptq.with_graph(ptq.gm, training={"best_epoch": 1})
        with pytest.raises(Problem, match=r"no longer the float network's \(an earlier training\).*\(--teacher\)"):
            fxqat.train(trained, tiny_data, unlabelled=True)

    def test_nothing_to_resume(self, trainer):
        with pytest.raises(Problem, match="no epoch was finished there; train without --resume"):
            trainer("none", resume=True).train()

    def test_resuming_another_training(self, trainer, ptq, monkeypatch, scripted):
        scripted(0.1, 0.2)
        trainer("run", epochs=1).train()
        with pytest.raises(Problem, match="is of a training with other options: epochs was 1; give the same"):
            trainer("run", epochs=2, resume=True).train()
        other = fxqat.calibrate(ptq.with_graph(ptq.gm), [torch.rand(1, 3, 64, 64)], method="standard")
        with pytest.raises(Problem, match="is of a training that began from another model"):
            trainer("run", detector=other, epochs=1, resume=True).train()

    def test_a_val_split_without_labels(self, trainer, monkeypatch, ptq, tiny_data, tmp_path):
        shutil.copytree(tiny_data.parent, tmp_path / "bare")
        for label in (tmp_path / "bare/labels/val").glob("*.txt"):
            label.write_text("")
        shutil.rmtree(tmp_path / "bare/labels/val.cache", ignore_errors=True)
        with pytest.raises(Problem, match=r"split 'val' has no labelled object \(12 images, 12 label files\)"):
            fxqat.train(ptq, tmp_path / "bare/tiny.yaml", folder=tmp_path / "r", imgsz=64, batch=6, device="cpu")
        assert not (tmp_path / "r").exists()


def test_labels_that_nothing_is_learned_from_are_not_looked_at(trainer, scripted, ptq, tiny_data, tmp_path):
    copy = tmp_path / "copy" / "tiny.yaml"
    shutil.copytree(tiny_data.parent, copy.parent)
    train = list((copy.parent / "labels" / "train").glob("*.txt"))
    how = {"imgsz": 64, "batch": 6, "device": "cpu"}
    for label in train:
        label.unlink()
    scripted(0.1, 0.2)
    create_trainer(ptq, {"data": str(copy), "unlabelled": True, "epochs": 1, **how}, tmp_path / "x").train()
    assert not list((copy.parent / "labels").glob("train*/*"))
    with pytest.raises(Problem, match=r"split 'train' has no labelled object \(12 images, 0 label files\)"):
        create_trainer(ptq, {"data": str(copy), "task": 1.0, **how}, tmp_path / "x")
    for label in train:
        label.write_text("car 0.5 0.5 0.1 0.1")
    scripted(0.1, 0.2)
    create_trainer(ptq, {"data": str(copy), "unlabelled": True, "epochs": 1, **how}, tmp_path / "y").train()
    with pytest.raises(Problem, match="split 'train': every label file is malformed"):
        create_trainer(ptq, {"data": str(copy), "task": 1.0, **how}, tmp_path / "x")


@pytest.mark.parametrize("stated", ["path: elsewhere/..\n", "path: ./\n", "path: tiny\n"])
def test_training_finds_the_images_that_calibration_finds(ptq, tiny_data, tmp_path, monkeypatch, stated):
    """A relative path beside the YAML, with the working directory elsewhere; lists, and the key validation."""
    root = tmp_path / "set" / ("tiny" if "tiny" in stated else "")
    shutil.copytree(tiny_data.parent, root)
    (tmp_path / "set" / "elsewhere").mkdir()
    data = tmp_path / "set" / "data.yml"
    (root / "some.txt").write_text("images/val/001.png\n./images/val/002.png\n")
    data.write_text(f"{stated}train: [images/train]\nvalidation: some.txt\nnc: 3\n")
    monkeypatch.chdir("/")
    run = create_trainer(ptq, {"data": str(data), "imgsz": 64, "device": "cpu"}, tmp_path / "x")
    for split in ("train", "val"):
        found = images.image_paths(data, split=split).paths
        listed = run.build_dataset(run.data[split], "val", 4).im_files
        # without labels, links to the images are trained on
        assert [os.path.realpath(path) for path in found] == [os.path.realpath(path) for path in listed]
        assert len(listed) == {"train": 12, "val": 2}[split]


def test_a_full_disk_keeps_the_epochs_before_and_training_goes_on_to_the_same_bits(trainer, tmp_path, scripted):
    scripted(0.1, 0.2, 0.3)
    whole = trainer("whole")
    whole.train()

    class Full:
        """From the second epoch on, no file may be larger than a page."""

        def on_train_epoch_start(self, run: Trainer) -> None:
            if run.epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    scripted(0.1, 0.2, 0.3)
    run = trainer("full", callbacks=[Full()])
    try:
        said = refusal(run.train)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be read or written (File too large)" in said
    assert said.endswith("make room; epochs up to 1 are kept: go on with --resume")
    assert resume_state.read(run.state_file).epochs_done == 1
    assert not list(run.state_file.parent.glob(".*"))
    scripted(0.3)
    trainer("full", resume=True).train()
    same_state(run.state_file, whole.state_file)


def test_two_trainings_do_not_share_a_folder(trainer, tmp_path):
    run = trainer("run")
    with locked(tmp_path / "run", "a test"):
        assert refusal(run.train) == (
            f"{tmp_path / 'run'}: another training is running there; wait for its end, or choose another -o"
        )
    assert not run.state_file.exists()


@pytest.mark.parametrize(
    ("device", "count", "line"),
    [
        ("0", 0, "device 0: this machine has no GPU that PyTorch can use; use cpu"),
        ("0,1", 1, "device 0,1: this machine has GPUs 0 to 0; choose of them"),
    ],
)
def test_a_device_that_is_not_here(trainer, monkeypatch, tmp_path, device, count, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert refusal(trainer, "x", device=device) == line
    assert refusal(trainer, "x", device="gpu").startswith("device gpu: cannot be used (")
    assert not (tmp_path / "x").exists()


def test_a_moved_data_set_goes_on_and_another_does_not(trainer, tiny_data, ptq, tmp_path, scripted):
    scripted(0.1, 0.2)
    trainer("run", epochs=1).train()
    how = {"imgsz": 64, "batch": 6, "epochs": 1, "device": "cpu"}
    moved = tmp_path / "moved" / "other.yaml"
    shutil.copytree(tiny_data.parent, moved.parent)
    (moved.parent / "tiny.yaml").rename(moved)
    run = create_trainer(ptq, configure(str(moved), None, "", how), tmp_path / "run", resume=True)
    run.train()
    assert len(run.history) == 2
    (moved.parent / "images" / "train" / "000.png").unlink()
    other = create_trainer(ptq, configure(str(moved), None, "", how), tmp_path / "run", resume=True)
    assert refusal(other.train) == (
        f"{run.state_file}: is of a training on other images than {moved} has (then {tiny_data}); "
        "give that data set, wherever it is now, or train without --resume"
    )


def test_a_mapping_holds_the_options_of_train(ptq, tiny_data, tmp_path):
    run = create_trainer(ptq, {"data": str(tiny_data), "imgsz": 64, "fraction": 0.5, "penalty": 0.1}, tmp_path / "x")
    assert (run.plan.imgsz.plain, run.plan.loss.penalty, run.args.fraction) == (64, 0.1, 0.5)
    assert (
        refusal(create_trainer, ptq, {"imgsz": 64}, tmp_path / "x")
        == "create_trainer: config has no data; expected the path of a data set YAML"
    )


def test_a_mapping_overrules_the_policys_section(ptq, tiny_data, tmp_path):
    rules, section = ptq.recipe.policy_text.partition("\nqat:")[0], "qat: {distill: 0.5, lr0: 0.0001, epochs: 7}"
    asking = ptq.with_graph(ptq.gm, policy_text=f"{rules}\n{section}\n")
    run = create_trainer(asking, {"data": str(tiny_data), "imgsz": 64, "epochs": 2}, tmp_path / "x")
    assert (run.plan.loss.distill, run.args.lr0, run.plan.epochs) == (0.5, 0.0001, 2)
