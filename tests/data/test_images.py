"""Calibration images: found where Ultralytics finds them, the same bits as its validator's, one-line errors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fxqat.data import dataset, images


@pytest.fixture
def data_copy(tiny_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_data.parent, tmp_path / "copy")
    return tmp_path / "copy" / "tiny.yaml"


def validator_images(yaml_file: Path, split: str, imgsz: int | tuple[int, int]) -> tuple[list[str], torch.Tensor]:
    """What Ultralytics' own validator feeds its model: its data set, its loader, its preprocessing."""
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.models.yolo.detect import DetectionValidator

    from fxqat.models import offline

    offline.provide_fonts()
    validator = DetectionValidator(
        save_dir=yaml_file.parent / "runs", args={"rect": False, "workers": 0, "task": "detect"}
    )
    validator.args.imgsz = imgsz  # Ultralytics' validator of a file sets what the file says, also height and width
    validator.training, validator.device, validator.stride = False, torch.device("cpu"), 32
    validator.data = check_det_dataset(str(yaml_file))
    seen = [validator.preprocess(batch) for batch in validator.get_dataloader(validator.data[split], 5)]
    return [path for batch in seen for path in batch["im_file"]], torch.cat([batch["img"] for batch in seen])


@pytest.mark.parametrize("imgsz", [32, 96, 160, (64, 96), (160, 32), (96, 224)])
def test_images_equal_the_validators_bit_for_bit(data_copy, imgsz):
    found = images.image_paths(data_copy, split="val")
    files, expected = validator_images(data_copy, "val", imgsz)
    assert [str(path) for path in found.paths] == files
    assert torch.equal(torch.cat(list(images.batches(found, imgsz, 4))), expected)


@pytest.mark.slow
def test_real_images_equal_the_validators_bit_for_bit(shared_data, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.image_paths(shared_data / "coco-val" / "data.yaml", limit=12).paths:
        shutil.copy(path, folder)
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnc: 80\n")
    _, expected = validator_images(data, "val", 640)
    assert torch.equal(torch.cat(list(images.batches(images.image_paths(data), 640, 5))), expected)


@given(height=st.integers(10, 90), width=st.integers(10, 90), size=st.sampled_from([32, 64]), seed=st.integers(0, 9))
def test_letterbox_keeps_the_aspect_and_pads_with_114(tmp_path_factory, height, width, size, seed):
    file = tmp_path_factory.getbasetemp() / "one.png"
    picture = np.random.default_rng(seed).integers(0, 100, (height, width, 3), dtype=np.uint8)  # never 114
    cv2.imwrite(str(file), picture)
    image = images.load_image(file, size)
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    inside = (image * 255 != 114).any(0)
    rows, columns = int(inside.any(1).sum()), int(inside.any(0).sum())
    assert max(rows, columns) == size
    # the short side is short / long * size, rounded up: within one pixel
    assert 0 <= min(rows, columns) - min(height, width) / max(height, width) * size < 1


def test_images_are_rgb_in_0_to_1(tmp_path):
    file = tmp_path / "red.png"
    cv2.imwrite(str(file), np.full((64, 64, 3), (0, 51, 255), np.uint8))  # BGR
    assert images.load_image(file, 64)[:, 5, 5].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_a_yaml_gives_train_by_default_and_any_split_by_name(tiny_data):
    assert {path.parent.name for path in images.image_paths(tiny_data).paths} == {"train"}
    found = images.image_paths(tiny_data, split="val")
    assert (found.split, found.total, len(found)) == ("val", 12, 12)
    assert {path.parent.name for path in found.paths} == {"val"}


def test_folder_list_file_and_single_image(data_copy):
    folder = data_copy.parent / "images"
    found = images.image_paths(folder)
    assert (found.split, len(found)) == ("train", 12), "of a folder with splits, what calibration may look at"
    assert list(found.paths) == sorted(found.paths, key=str)
    assert len(images.image_paths(folder / "val")) == 12
    listed = data_copy.parent / "list.txt"
    listed.write_text("./images/train/003.png\n\nimages/val/001.png\n")
    assert [path.relative_to(folder).as_posix() for path in images.image_paths(listed).paths] == [
        "train/003.png",
        "val/001.png",
    ]
    assert images.image_paths(folder / "val" / "002.png").paths == (folder / "val" / "002.png",)


@given(count=st.integers(1, 60), limit=st.integers(1, 70))
def test_limit_spreads_evenly(count, limit):
    paths = [Path(str(index)) for index in range(count)]
    chosen = [int(str(path)) for path in images.spread(paths, limit)]
    assert len(chosen) == min(count, limit)
    assert chosen[0] == 0
    gaps = {after - before for before, after in zip([*chosen, count], [*chosen[1:], count], strict=False)} - {0}
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("stated", ["", "path: {root}\n", "path: .\n", "path: copy\n"])
def test_the_root_is_found_as_ultralytics_does_and_beside_the_yaml(data_copy, monkeypatch, stated):
    body = data_copy.read_text()
    data_copy.write_text(stated.format(root=data_copy.parent) + body)
    monkeypatch.chdir(data_copy.parent.parent if "copy" in stated else Path("/"))
    assert len(images.image_paths(data_copy)) == 12


def test_roboflows_parent_prefix_and_validation_key(data_copy):
    data_copy.write_text("train: ../images/train\nvalidation: [images/val, images/train]\nnames: [a, b, c]\n")
    assert len(images.image_paths(data_copy)) == 12
    assert len(images.image_paths(data_copy, split="val")) == 24


def test_bytes_that_are_no_utf8_are_dropped_as_ultralytics_drops_them(data_copy):
    from ultralytics.utils import YAML

    body = "train: images/train\nval: images/val\nnames: [caf\u00e9, gr\u00fcn, b\x07lau]\n"
    data_copy.write_bytes(body.encode("latin-1"))
    assert list(dataset.read(data_copy).names.values()) == YAML.load(data_copy)["names"] == ["caf", "grn", "blau"]


@pytest.mark.parametrize("count", ["3", "3.0", "'3'"])
def test_a_count_of_classes_may_be_spelled_as_ultralytics_takes_it(data_copy, count):
    data_copy.write_text(f"train: images/train\nnc: {count}\n")
    assert list(dataset.read(data_copy).names.values()) == ["class_0", "class_1", "class_2"]


def test_the_suffix_of_a_yaml_may_be_in_capitals(data_copy):
    assert len(images.image_paths(data_copy.rename(data_copy.with_suffix(".YAML")), split="val")) == 12


def test_a_shipped_name_is_found():
    assert dataset.find("coco8").name == dataset.find("coco8.yaml").name == "coco8.yaml"


class TestCorruptImages:
    def test_are_skipped_counted_and_named_and_batches_stay_full(self, data_copy):
        folder = data_copy.parent / "images" / "train"
        (folder / "003.png").write_bytes(b"not an image")
        (folder / "004.png").write_bytes(b"")
        jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes()
        (folder / "00a.jpg").write_bytes(jpeg[: len(jpeg) // 2])
        (folder / "00b.jpg").write_bytes(jpeg + b"trailing bytes do no harm")
        skipped: list[tuple[str, str]] = []
        found = images.image_paths(data_copy)
        sizes = [
            len(batch) for batch in images.batches(found, 32, 4, lambda path, why: skipped.append((path.name, why)))
        ]
        assert sizes == [4, 4, 3]  # 12 PNGs, 2 of them damaged, and 1 good JPEG
        assert [name for name, _ in skipped] == ["003.png", "004.png", "00a.jpg"]
        assert skipped[0][1] == "not an image"
        assert skipped[2][1].startswith("cut short: ")

    def test_a_listed_file_that_is_missing_is_named(self, data_copy):
        listed = data_copy.parent / "list.txt"
        listed.write_text("./images/train/003.png\n./gone.png\n")
        skipped: list[str] = []
        batches = images.batches(
            images.image_paths(listed), 32, 8, lambda path, why: skipped.append(f"{path.name} {why}")
        )
        assert [len(batch) for batch in batches] == [1]
        assert skipped == ["gone.png no such file"]

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (
                b"../../a/b/001.jpg",
                "a link that git wrote as a text file, to ../../a/b/001.jpg: put that image in its place",
            ),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                "a pointer of Git LFS, not the image: run git lfs pull",
            ),
            (b"a/b\n.jpg", "not an image"),
            (b"\xff/.jpg\x00", "not an image"),
        ],
    )
    def test_what_git_leaves_in_place_of_an_image_is_named(self, content, why, tmp_path):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(images.Unreadable) as said:
            images.read_pixels(tmp_path / "a.jpg")
        assert str(said.value) == why

    def test_nothing_readable_at_all(self, tmp_path):
        for name in ("a.png", "b.jpg"):
            (tmp_path / name).write_bytes(b"junk")
        assert (
            refusal(list, images.batches(images.image_paths(tmp_path), 32, 4))
            == f"{tmp_path}: holds no readable image (2 tried; a.png: not an image); check that the files are complete"
        )


class TestProblems:
    def test_missing(self):
        assert (
            refusal(images.image_paths, "nothing/here")
            == "nothing/here: no such data set; give a data set YAML, an image folder, a list file or an image"
        )

    def test_a_misspelt_shipped_name(self):
        assert (
            refusal(images.image_paths, "coco129.yaml") == "coco129.yaml: no such data set; did you mean coco128.yaml?"
        )

    def test_no_such_split(self, tiny_data):
        assert (
            refusal(images.image_paths, tiny_data, split="test")
            == f"{tiny_data}: has no split 'test'; expected one of its splits: train, val"
        )

    def test_the_splits_folder_is_missing(self, tmp_path):
        data = tmp_path / "d.yaml"
        data.write_text("train: pictures\nval: pictures\nnames: [a]\n")
        where = tmp_path / "pictures"
        assert (
            refusal(images.image_paths, data)
            == f"{data}: split 'train' is missing: no {where}; correct 'path' in the YAML"
        )

    def test_a_folder_without_images(self, tmp_path):
        said = refusal(images.image_paths, tmp_path)
        assert said.startswith(f"{tmp_path}: holds no image; expected files ending in avif, ")
        assert said.endswith(", webp")

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ("train: [a\nval: b: c\n", ":2: is not valid YAML: "),
            ("just words", ": is not a data set YAML; expected keys such as train, val and names"),
            ("train: x\nnames: {0: a, 2: b}\n", ": 'names' is not a list of classes; expected names numbered "),
            ("train: x\nnames: {one: a}\n", ": 'names' has an index that is no number: "),
            ("train: x\n", ": 'names' is not a list of classes; "),
            ("train: x\nnc: 3\nnames: [a, b]\n", ": 'nc' says 3 classes, 'names' has 2; correct one of them"),
            ("train: x\nnc: many\n", ": 'nc' is 'many'; expected the number of classes"),
            ("train: 3\nnc: 3\n", ": 'train' is 3; expected a path or a list"),
            (
                "train: x\nnc: 3\nchannels: 1\n",
                ": 'channels' is 1; expected 3 (RGB); leave it out to have grey ",
            ),
            ("path: [a]\ntrain: x\n", ": 'path' is ['a']; expected a path"),
            ("train: x\nnames: a\n", ": 'names' is 'a'; expected a list or a mapping of numbers to names"),
        ],
    )
    def test_malformed_yaml(self, tmp_path, body, says):
        data = tmp_path / "bad.yaml"
        data.write_text(body)
        assert refusal(images.image_paths, data).startswith(f"{data}{says}")

    @pytest.mark.parametrize(
        ("line", "remedy"),
        [("images/a.jpg 3", "; put its class into a label file"), ("# images", ""), ("labels/a.txt", "")],
    )
    def test_a_line_that_is_no_image_is_not_left_out(self, tmp_path, line, remedy):
        file = tmp_path / "list.txt"
        file.write_text(f"a.png\n\n{line}\n")
        assert refusal(images.image_paths, file) == f"{file}:3: {line!r} is no image; expected one path a line{remedy}"

    def test_a_list_file_that_is_no_text(self, tmp_path):
        file = tmp_path / "weights.bin"
        file.write_bytes(os.urandom(64) + b"\xff")
        assert (
            refusal(images.image_paths, file)
            == f"{file}: is not a list of image paths; expected UTF-8 text, one path a line"
        )

    @pytest.mark.parametrize(("imgsz", "nearest"), [(630, "608 or 640"), (1, "32"), (100, "96 or 128")])
    def test_imgsz(self, tiny_data, imgsz, nearest):
        assert (
            refusal(images.batches, images.image_paths(tiny_data), imgsz, 4)
            == f"imgsz {imgsz}: is not a multiple of 32; use {nearest}"
        )

    def test_limit_and_batch(self, tiny_data):
        assert refusal(images.image_paths, tiny_data, limit=0) == "limit 0: asks for no image; expected 1 or more"
        assert (
            refusal(images.batches, images.image_paths(tiny_data), 32, 0)
            == "batch 0: holds no image; expected 1 or more"
        )
