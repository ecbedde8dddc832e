"""Training of every task: Ultralytics' own loss of the task, its trainer, its data, its metric; of small networks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alive import alive
from refusals import refusal
from rows import row
from small_networks import write
from torch import Tensor

import fxqat
from fxqat.evaluation.accuracy import Predictor, evaluate
from fxqat.models.detector import Detector
from fxqat.models.families.pose import PointFlow
from fxqat.models.load import build
from fxqat.runtime.integer_model import predictor
from fxqat.training.config import configure
from fxqat.training.factory import create_trainer
from fxqat.training.trainer import Trainer

IMGSZ = 64
MODELS = ("yolov8n", "yolo11n", "yolo26n")
TASKS = {"": "detect", "-seg": "segment", "-pose": "pose", "-obb": "obb", "-cls": "classify"}
NAMES = [f"{model}{task}" for model in MODELS for task in TASKS]
# By the labels of a task and the float network, or by the float network alone: a head of each task.
WAYS: dict[str, dict[str, Any]] = {"labels": {"distill": 1.0}, "float network": {"unlabelled": True}}
FAST = [("labels", "yolov8n-cls"), ("labels", "yolov8n-seg"), ("float network", "yolo26n-pose")]
SLOW = [(way, name) for way in WAYS for name in ("yolov8n-seg", "yolov8n-cls", "yolo26n-pose", "yolo26n-obb")]
SLOW = [one for one in SLOW if one not in FAST]
WHOLE = "yolo26n-seg"  # Ultralytics' validation of masks does not take the strides of the small one
COLOURS = {0: "red", 1: "green", 2: "blue"}


def task_of(name: str) -> str:
    return TASKS[name.removeprefix(name.partition("-")[0])]


def colours(name: str, folder: Path, images: Tensor, **how: Any) -> Detector:
    """A float model of random weights that knows the colours' names; its architecture is in ``folder``."""
    architecture = f"{name}.yaml" if name == WHOLE else write(folder, name)
    model = alive(fxqat.load(architecture, classes=3, **how), images)
    model.source = replace(model.source, names=COLOURS)
    return model


def calibrated(name: str, folder: Path, images: Tensor, data: Path, **how: Any) -> Detector:
    return fxqat.calibrate(fxqat.prepare(colours(name, folder, images, **how), "w8a8")[0], data, imgsz=IMGSZ)


def trainer_of(detector: Detector, data: Path, folder: Path, *, resume: bool = False, **options: Any) -> Trainer:
    chosen = {"imgsz": IMGSZ, "batch": 3, "epochs": 1, "device": "cpu", **options}
    return create_trainer(detector, configure(str(data), None, "", chosen), folder, resume=resume)


def set_up(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make all that ``trainer`` needs, validate nothing, and give the first batch of its loader."""
    monkeypatch.setattr(Trainer, "_validate_start", lambda self: None)
    trainer._setup_train()
    trainer.trainee.train()
    return trainer.preprocess_batch(next(iter(trainer.train_loader)))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_ultralytics_own_of_the_whole_model(name, task_data, tmp_path, monkeypatch):
    theirs, _ = build(write(tmp_path, name))  # the weights of fxqat.load
    run = trainer_of(fxqat.load(write(tmp_path, name)), task_data(task_of(name)), tmp_path / "run")
    batch = set_up(run, monkeypatch)
    theirs.args = run.args
    wanted, items = theirs.train().loss(batch)
    found, parts = run.trainee.loss(batch)
    assert list(parts) == list(items)
    # the same operations in float32; convolutions of another memory layout sum in another order
    assert float(found.detach()) == pytest.approx(float(wanted.detach().sum()), rel=1e-4)
    wanted.sum().backward()
    found.backward()
    first, other = (next(model.parameters()).grad for model in (theirs, run.trainee))
    assert float((first - other).norm() / first.norm()) < 1e-2


@pytest.mark.parametrize(("way", "name"), [*FAST, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)])
def test_a_task_is_trained_by_labels_and_by_the_float_network(way, name, task_data, images, tmp_path):
    data = task_data(task_of(name))
    ptq = calibrated(name, tmp_path, images, data)
    run = trainer_of(ptq, data, tmp_path / "run", lr0=1e-3, **WAYS[way])
    run.train()
    trained = run.history[1]
    assert all(torch.isfinite(torch.tensor(value)) for value in trained.values())
    taught = {f"distill_{'_'.join((*one.branch, one.loss))}" for one in ptq.trained}
    assert taught <= trained.keys()
    assert (trained.keys() - taught == {"epoch", "map5095", "map50", "lr"}) is (way == "float network")
    moved = run.latest().gm.state_dict()
    assert any(not torch.equal(one, moved[key]) for key, one in ptq.gm.state_dict().items() if "weight" in key)
    int8, _ = fxqat.convert(run.result())
    assert int8.stage == "int8"


@pytest.mark.parametrize("name", ["yolo26n", pytest.param("yolo26n-seg", marks=pytest.mark.slow)])
def test_a_head_without_nms_is_trained_and_validated_by_its_rows(name, task_data, images, tmp_path):
    data = task_data(task_of(name))
    run = trainer_of(calibrated(name, tmp_path, images, data, nms_free=True), data, tmp_path / "run", lr0=1e-3)
    run.train()
    assert run.validator.end2end is True
    assert run.result().source.head_spec.nms_free
    assert len(run.history) == 2


def test_the_weight_moves_from_the_branch_with_nms_to_the_other_and_resuming(task_data, images, tmp_path, monkeypatch):
    data = task_data("detect")
    run = trainer_of(fxqat.load(write(tmp_path, "yolo26n")), data, tmp_path / "run", epochs=3)
    set_up(run, monkeypatch)
    (task,) = run.trainee.criterion.parts
    seen = [task.criterion.o2m]
    for _ in range(2):
        run.trainee.criterion.update()  # as Ultralytics' trainer after an epoch
        seen.append(task.criterion.o2m)
    # Ultralytics' schedule: from 0.8 to 0.1 in epochs - 1 steps
    assert seen == pytest.approx([0.8, 0.45, 0.1])
    run.start_digest, run.best_epoch, run.kept = "", 0, {}
    run.history = [row(epoch, 0.0) for epoch in range(3)]
    again = trainer_of(run.given, data, tmp_path / "again", epochs=3)
    set_up(again, monkeypatch)
    again._restore(run._state())
    assert again.trainee.criterion.parts[0].criterion.o2m == task.criterion.o2m


def test_the_flow_of_key_points_is_trained_and_kept(task_data, images, tmp_path, monkeypatch):
    run = trainer_of(fxqat.load(write(tmp_path, "yolo26n-pose")), task_data("pose"), tmp_path / "run", lr0=1e-3)
    batch = set_up(run, monkeypatch)
    loss, parts = run.trainee.loss(batch)
    assert parts["rle_loss"] > 0
    loss.backward()
    flows = [one for one in run.trainee.modules() if isinstance(one, PointFlow)]
    assert len(flows) == 1, "both branches share it, as Ultralytics'"
    assert any(one.grad is not None and float(one.grad.abs().sum()) > 0 for one in flows[0].parameters())
    kept = fxqat.load(fxqat.save(run.trainee.detector, tmp_path / "x.fxqat")).gm.state_dict()
    flow = {key: one for key, one in run.trainee.detector.gm.state_dict().items() if ".flow." in key}
    assert flow
    assert all(torch.equal(kept[key], one) for key, one in flow.items())


def test_a_classifier_is_validated_as_val_measures_it(task_data, images, tmp_path):
    data = task_data("classify")
    ptq = calibrated("yolov8n-cls", tmp_path, images, data)
    run = trainer_of(ptq, data, tmp_path / "run")
    run.train()
    measured = evaluate(Predictor.of(ptq, predictor(ptq)), data, imgsz=IMGSZ)
    assert run.history[0]["map5095"] == pytest.approx(measured.map5095, abs=1e-5)  # Ultralytics gives 5 decimals
    assert run.history[0]["map50"] == 1.0  # top-5 of three classes
    assert run.result().recipe.training["metric"] == "top-1"


def test_resuming_a_classifier_continues_to_the_same_bits(task_data, images, tmp_path):
    data = task_data("classify")
    ptq = calibrated("yolov8n-cls", tmp_path, images, data)
    options = {"epochs": 2, "lr0": 1e-3}
    whole = trainer_of(ptq, data, tmp_path / "whole", **options)
    whole.train()

    class Cut:
        def on_train_batch_end(self, running: Trainer) -> None:
            if running.epoch == 1:
                raise KeyboardInterrupt

    cut = trainer_of(ptq, data, tmp_path / "cut", **options)
    cut.callbacks["on_train_batch_end"] = [Cut().on_train_batch_end]
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = trainer_of(ptq, data, tmp_path / "cut", resume=True, **options)
    again.train()
    assert again.history == whole.history
    ours, theirs = again.latest().gm.state_dict(), whole.latest().gm.state_dict()
    assert all(torch.equal(one, theirs[key]) for key, one in ours.items())


def test_task_data_another_task_is_refused(task_data, tmp_path):
    boxes, poses, classes = task_data("detect"), task_data("pose"), task_data("classify")
    segment, pose, classify = (fxqat.load(f"yolov8n-{task}.yaml", classes=3) for task in ("seg", "pose", "cls"))
    folder = tmp_path / "run"
    said = refusal(lambda: trainer_of(segment, boxes, folder))
    assert "every label file is malformed (first 000.txt: a row has 5 columns)" in said
    assert "expected rows of: class x1 y1 x2 y2 x3 y3 ..., relative to the image" in said
    assert (
        refusal(lambda: trainer_of(pose, boxes, folder))
        == f"{boxes}: does not say kpt_shape; expected kpt_shape: [17, 3]"
    )
    other = poses.with_name("other.yaml")
    other.write_text(poses.read_text().replace("- 17\n- 3\n", "- 4\n- 3\n"))
    said = f"{other}: kpt_shape is [4, 3], yolov8n-pose.yaml predicts [17, 3]; expected kpt_shape: [17, 3]"
    assert refusal(lambda: trainer_of(pose, other, folder)) == said
    assert refusal(lambda: trainer_of(classify, boxes, folder)) == (
        f"{boxes}: is no folder; expected a folder of images for each class"
    )
    lone = tmp_path / "lone"
    shutil.copytree(classes / "val", lone / "val")
    assert refusal(lambda: trainer_of(classify, lone, folder)) == (
        f"{lone}: has no folder 'train'; expected folders train and val, of class folders"
    )
    classify.source = replace(classify.source, names={0: "red", 1: "green", 2: "yellow"})
    assert refusal(lambda: trainer_of(classify, classes, folder)) == (
        f"{classes}: 'blue' is no class of yolov8n-cls.yaml; expected folders named: red, green, yellow"
    )


def test_without_labels_any_images_teach_masks(task_data, images, tmp_path):
    """Boxes beside the images of the train split are not looked at, whatever the task."""
    root = tmp_path / "mixed"
    masks, boxes = task_data("segment").parent, task_data("detect").parent
    for part in ("images", "labels"):
        shutil.copytree(boxes / part / "train", root / part / "train")
        shutil.copytree(masks / part / "val", root / part / "val")
    data = Path(shutil.copy(task_data("segment"), root / "mixed.yaml"))
    run = trainer_of(calibrated("yolov8n-seg", tmp_path, images, data), data, tmp_path / "run", unlabelled=True)
    run.train()
    assert "distill_proto" in run.history[1]


def test_a_split_of_damaged_images_is_refused(task_data, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(task_data("classify"), root)
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"no image")
    run = trainer_of(fxqat.load(write(tmp_path, "yolov8n-cls")), root, tmp_path / "run")
    assert refusal(run.train) == f"{root}: split 'val' has no usable image"
