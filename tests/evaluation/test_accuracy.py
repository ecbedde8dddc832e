"""Accuracy is Ultralytics' own; the data set is only read; bad input is one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import NAMES, find_colours, shifted, write_onnx
from refusals import refusal

from fxqat.evaluation.accuracy import Predictor, evaluate, from_onnx
from fxqat.models.image_size import ImageSize

COLOURS = Predictor(name="colours", predict=find_colours, names=NAMES)


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def data_copy(tiny_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_data.parent, tmp_path / "copy")
    return tmp_path / "copy" / "tiny.yaml"


@pytest.fixture(scope="module")
def accuracy(tiny_data):
    return evaluate(COLOURS, tiny_data, imgsz=96)


def test_a_detector_that_sees_everything_scores_nearly_one(accuracy):
    assert (accuracy.images, accuracy.boxes, accuracy.skipped) == (12, 24, ())
    # 0.995 is the most Ultralytics' 101 point interpolation gives: its curve falls to zero at the last point
    assert accuracy.map50 == pytest.approx(0.995)
    assert 0.8 < accuracy.map5095 <= 0.995
    assert [item.name for item in accuracy.classes] == ["red", "green", "blue"]
    assert [item.boxes for item in accuracy.classes] == [12, 8, 4]
    assert np.mean([item.ap for item in accuracy.classes]) == pytest.approx(accuracy.map5095, rel=1e-12)
    assert np.mean([item.ap50 for item in accuracy.classes]) == pytest.approx(accuracy.map50, rel=1e-12)


def test_a_worse_detector_scores_lower(tiny_data, accuracy):
    worse = evaluate(Predictor(name="worse", predict=shifted(4), names=NAMES), tiny_data, imgsz=96)
    assert worse.map5095 < accuracy.map5095 - 0.1


def test_a_blind_detector_scores_zero(tiny_data):
    blind = evaluate(Predictor(name="blind", predict=lambda x: torch.zeros(len(x), 7, 3), names=NAMES), tiny_data)
    assert (blind.map5095, blind.map50, blind.precision, blind.recall) == (0, 0, 0, 0)
    assert blind.boxes == 24


def test_matches_are_one_an_image_and_give_the_metrics_back(tiny_data, accuracy):
    from ultralytics.utils.metrics import ap_per_class

    assert [match.image for match in accuracy.matches] == sorted(tiny_data.parent.glob("images/val/*"))
    columns = zip(
        *((match.tp, match.conf, match.pred_cls, match.target_cls) for match in accuracy.matches), strict=True
    )
    ap = ap_per_class(*(np.concatenate(column) for column in columns))[5]
    assert (ap.mean(), ap[:, 0].mean()) == (accuracy.map5095, accuracy.map50)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_batch_size_changes_nothing(tiny_data, accuracy, batch):
    again = evaluate(COLOURS, tiny_data, imgsz=96, batch=batch)
    assert again.summary() == accuracy.summary()


def test_a_tuple_counts_by_its_first_item(tiny_data, accuracy):
    pair = dataclasses.replace(COLOURS, predict=lambda images: (find_colours(images), "raw"))
    assert evaluate(pair, tiny_data, imgsz=96).summary() == accuracy.summary()


def test_split_limit_and_progress(tiny_data):
    seen: list[tuple[int, int]] = []
    part = evaluate(COLOURS, tiny_data, imgsz=96, split="train", limit=4, batch=3, progress=lambda *n: seen.append(n))
    assert [match.image.name for match in part.matches] == ["000.png", "003.png", "006.png", "009.png"]
    assert part.matches[0].image.parent.name == "train"
    assert seen == [(3, 4), (4, 4)]


def test_nothing_is_written_anywhere(data_copy, accuracy, monkeypatch, tmp_path):
    temporary, here = tmp_path / "temporary", tmp_path / "here"
    temporary.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(here)
    before = tree(data_copy.parent)
    assert evaluate(COLOURS, data_copy, imgsz=96).map5095 == accuracy.map5095
    assert tree(data_copy.parent) == before
    assert list(temporary.iterdir()) == list(here.iterdir()) == []


def test_a_read_only_data_set_works(data_copy, accuracy):
    folders = [path for path in [data_copy.parent, *data_copy.parent.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert evaluate(COLOURS, data_copy, imgsz=96).map5095 == accuracy.map5095
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_hostile_label_cache_is_not_opened(data_copy, tmp_path):
    """Ultralytics unpickles labels/val.cache where it finds one."""

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with open(data_copy.parent / "labels" / "val.cache", "wb") as file:
        np.save(file, np.array(Bomb(), dtype=object), allow_pickle=True)
    evaluate(COLOURS, data_copy, imgsz=96)
    assert not (tmp_path / "ran").exists()


def test_damaged_images_and_labels_are_named(data_copy):
    (data_copy.parent / "images" / "val" / "001.png").write_bytes(b"junk")
    (data_copy.parent / "labels" / "val" / "004.txt").write_text("7 0.5 0.5 0.1 0.1")  # there are three classes
    accuracy = evaluate(COLOURS, data_copy, imgsz=96)
    assert accuracy.images == 10
    assert [(path.name, why) for path, why in accuracy.skipped] == [
        ("001.png", "not an image"),
        ("004.png", "Ultralytics refuses the image or its label file as malformed"),
    ]


def test_summary_is_json(accuracy):
    back = json.loads(json.dumps(accuracy.summary()))
    assert back["map5095"] == accuracy.map5095
    assert back["classes"]["blue"]["boxes"] == 4


class TestOnnx:
    def test_dynamic_and_static_batches_agree(self, tiny_data, tmp_path):
        free = from_onnx(write_onnx(tmp_path / "free.onnx", names=str(NAMES)))
        fixed = from_onnx(write_onnx(tmp_path / "fixed.onnx", batch=4, imgsz=96, names=str(NAMES)), threads=1)
        assert (free.imgsz, fixed.imgsz, free.names, fixed.name) == (None, ImageSize.of(96), NAMES, "fixed.onnx")
        images = torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        assert free(images).shape == (6, 7, 36)
        # the same kernel on batches of another size may add in another order: 768 products of about 0.05, one ulp each
        torch.testing.assert_close(free(images), fixed(images), rtol=1e-5, atol=1e-4)
        assert evaluate(fixed, tiny_data, imgsz=96, batch=5).images == 12

    def test_placeholder_names_without_metadata(self, tiny_data, tmp_path):
        model = from_onnx(write_onnx(tmp_path / "bare.onnx"))
        assert model.names == {0: "class_0", 1: "class_1", 2: "class_2"}
        assert evaluate(model, tiny_data, imgsz=96).images == 12

    def test_problems(self, tmp_path):
        missing = tmp_path / "no.onnx"
        line = f"{missing}: no such file; expected an .onnx file; run fxqat export first"
        assert refusal(from_onnx, missing) == line
        (tmp_path / "junk.onnx").write_bytes(b"junk" * 9)
        said = refusal(from_onnx, tmp_path / "junk.onnx")
        assert said == f"{tmp_path / 'junk.onnx'}: is not an ONNX file; expected a file written by fxqat export"
        odd = write_onnx(tmp_path / "odd.onnx", names="[1, 2")
        assert refusal(from_onnx, odd) == f"{odd}: its metadata 'names' is no mapping of numbers to names"

    def test_metadata_that_are_no_text(self, tmp_path):
        odd = write_onnx(tmp_path / "odd.onnx", names="{0: 'MARK'}")
        odd.write_bytes(odd.read_bytes().replace(b"MARK", b"M\xef\xffK"))
        says = "is damaged: a name or the metadata are no text; expected a file written by fxqat export"
        assert refusal(from_onnx, odd) == f"{odd}: {says}"

    def test_a_batch_that_no_memory_holds(self, tmp_path):
        odd = write_onnx(tmp_path / "odd.onnx", batch=2**31 - 1, imgsz=64)
        says = f"takes images of sizes [{2**31 - 1}, 3, 64, 64]; expected a batch that fits into memory"
        assert refusal(from_onnx, odd) == f"{odd}: {says}"


class TestProblems:
    def test_missing_data(self):
        assert refusal(evaluate, COLOURS, "no.yaml").startswith("no.yaml: no such data set; ")

    def test_a_folder_has_no_labels(self, tiny_data):
        assert (
            refusal(evaluate, COLOURS, tiny_data.parent)
            == f"{tiny_data.parent}: has no labels to measure against; expected a data set YAML"
        )

    def test_class_count(self, tiny_data):
        two = Predictor(name="two.onnx", predict=find_colours, names={0: "a", 1: "b"})
        says = "has 3 classes, two.onnx predicts 2; use the data set the model was trained for"
        assert refusal(evaluate, two, tiny_data) == f"{tiny_data}: {says}"

    def test_class_names(self, tiny_data):
        swapped = dataclasses.replace(COLOURS, names={0: "red", 1: "blue", 2: "green"})
        says = "class 1 is 'green', colours predicts 'blue' (2 classes differ); put its names in the model's order"
        assert refusal(evaluate, swapped, tiny_data) == f"{tiny_data}: {says}"

    @pytest.mark.parametrize("names", [("Red", "GREEN", "b-lue"), ("0", "1", "2"), ("class0", "class1", "class2")])
    def test_names_that_agree(self, tiny_data, names):
        named = dataclasses.replace(COLOURS, names=dict(enumerate(names)))
        assert evaluate(named, tiny_data, imgsz=32, limit=1).images == 1

    def test_output_shape(self, tiny_data):
        wrong = dataclasses.replace(COLOURS, predict=lambda images: torch.zeros(len(images), 300, 6))
        says = "its output output0 has shape (8, 300, 6); expected (N, 7, A), N = 8"
        assert refusal(evaluate, wrong, tiny_data, imgsz=96) == f"colours: {says}"

    def test_image_size(self, tiny_data):
        assert refusal(evaluate, COLOURS, tiny_data, imgsz=90) == "imgsz 90: is not a multiple of 32; use 64 or 96"
        assert (
            refusal(evaluate, dataclasses.replace(COLOURS, imgsz=64), tiny_data, imgsz=96)
            == "imgsz 96: colours takes 64 only; use 64"
        )

    def test_no_labels(self, data_copy):
        shutil.rmtree(data_copy.parent / "labels")
        says = "split 'val' has no labelled object (12 images, 0 label files)"
        says += "; expected label files in labels/ beside images/"
        assert refusal(evaluate, COLOURS, data_copy, imgsz=96) == f"{data_copy}: {says}"

    def test_no_readable_image(self, data_copy):
        for file in data_copy.parent.glob("images/val/*"):
            file.write_bytes(b"junk")
        says = "holds no readable image (12 tried; 000.png: not an image); check that the files are complete"
        assert refusal(evaluate, COLOURS, data_copy, imgsz=96) == f"{data_copy}: {says}"

    def test_no_usable_label(self, data_copy):
        for file in data_copy.parent.glob("labels/val/*"):
            file.write_text("one two three")
        says = "split 'val': every label file is malformed (first 000.txt: 'one two three' is not a row of numbers)"
        says += "; expected rows of: class x y w h, relative to the image"
        assert refusal(evaluate, COLOURS, data_copy, imgsz=96) == f"{data_copy}: {says}"


@pytest.mark.slow
def test_real_weights_give_what_ultralytics_gives(shared_data, tmp_path):
    """The stock validator on the same 24 images, against ours: the same float for float."""
    from ultralytics import YOLO

    from fxqat.data import images
    from fxqat.models import offline

    offline.provide_fonts()
    data = (shared_data / "coco-val" / "data.yaml").resolve()
    model = YOLO(shared_data / "weights" / "yolov8n.pt")
    paths = images.image_paths(data, split="val", limit=24).paths
    for path in paths:
        for file in (path, Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")):
            target = tmp_path / file.relative_to(data.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    copy = tmp_path / "data.yaml"
    copy.write_text(data.read_text())
    options = {"imgsz": 320, "rect": False, "plots": False, "batch": 8, "workers": 0, "device": "cpu"}
    stock = model.val(data=str(copy), project=str(tmp_path / "runs"), **options)
    network = model.model.float().fuse().eval().to(memory_format=torch.channels_last)  # as Ultralytics' AutoBackend
    ours = evaluate(Predictor(name="n", predict=network, names=model.names), data, imgsz=320, limit=24)
    assert ours.images == 24
    assert (ours.map5095, ours.map50) == (stock.box.map, stock.box.map50)
    assert (ours.precision, ours.recall) == (stock.box.mp, stock.box.mr)
