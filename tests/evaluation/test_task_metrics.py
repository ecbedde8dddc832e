"""val of every task: the task's own metrics, each with its interval against the first model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from commands import said

import fxqat
from fxqat.data import class_folders, images
from fxqat.evaluation.classification import ranked

COLOURS = {0: "red", 1: "green", 2: "blue"}
# Of each task what a row of the table is called, and what it counts.
METRICS = {
    "yolov8n": ("detect", "mAP50-95", [""], "boxes"),
    "yolov8n-seg": ("segment", "mAP50-95", [" mask", " box"], "masks"),
    "yolov8n-pose": ("pose", "mAP50-95", [" pose", " box"], "poses"),
    "yolo26n-obb": ("obb", "mAP50-95", [""], "boxes"),
    "yolo11n-cls": ("classify", "top-1", [""], "labels"),
}

FAST = ("yolov8n-seg", "yolo11n-cls")


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(one, marks=pytest.mark.slow) for one in METRICS if one not in FAST)]
)
def test_every_metric_of_the_task_is_compared_with_the_first_model(name, task_data, tmp_path, capsys):
    task, title, rows, counted = METRICS[name]
    model = fxqat.load(f"{name}.yaml", classes=3)
    model.source = replace(model.source, names=COLOURS)
    files = [str(fxqat.save(model, tmp_path / f"{one}.fxqat")) for one in ("a", "b")]
    numbers = tmp_path / "numbers.json"
    printed = said(capsys, "val", *files, "--data", str(task_data(task)), "--imgsz", "64", "-q", "--json", str(numbers))
    lines = printed.splitlines()
    assert lines[0].split()[1] == title
    assert [line.partition("  ")[0] for line in lines[1:-1]] == [f"{one}.fxqat{row}" for one in "ab" for row in rows]
    assert all("+0.00 [+0.00, +0.00]" in line for line in lines[1 + len(rows) : -1])
    assert lines[-1].split(", ")[1].split()[1] == counted
    other = json.loads(numbers.read_text())[1]
    drifts = [other["drift"], *(one["drift"] for one in other.get("others", ()))]
    assert [drift["points"] for drift in drifts] == [0.0] * len(rows)


def test_the_first_of_equal_probabilities_is_the_guess():
    probabilities = torch.tensor([[0.25, 0.5, 0.25], [0.4, 0.2, 0.4]])
    assert ranked(probabilities).tolist() == [[1, 0, 2], [0, 2, 1]]


def test_a_classifier_is_calibrated_on_its_train_folder_alone(task_data):
    found = images.image_paths(task_data("classify"))
    assert found.split == "train"
    assert list(found.paths) == class_folders.read(found.source, "a classifier", COLOURS).images("train")


def test_classes_without_names_are_those_of_the_folders_in_order(task_data):
    unnamed = {index: str(index) for index in range(3)}
    assert class_folders.read(task_data("classify"), "x", unnamed).names == {0: "blue", 1: "green", 2: "red"}
