from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from fxqat.demo import CLASSES, make_dataset
from fxqat.demo.dataset import Recipe
from fxqat.errors import Problem


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "signs"
    make_dataset(out, images=40, seed=3, imgsz=160)
    return out


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_layout_is_ultralytics(signs: Path) -> None:
    for split, count in {"train": 26, "val": 10, "calibration": 4}.items():
        images = sorted(path.stem for path in (signs / "images" / split).iterdir())
        assert images == [f"{i:05}" for i in range(count)]
        assert images == sorted(path.stem for path in (signs / "labels" / split).iterdir())
    described = yaml.safe_load((signs / "data.yaml").read_text())
    assert described == {
        "train": "images/train",
        "val": "images/val",
        "calibration": "images/calibration",
        "names": dict(enumerate(CLASSES)),
    }


def test_ultralytics_accepts_it(signs: Path) -> None:
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    data = check_det_dataset(str(signs / "data.yaml"), autodownload=False)
    assert data["nc"] == 10
    assert data["names"] == dict(enumerate(CLASSES))
    for split in ("train", "val"):
        images = sorted(str(path) for path in Path(data[split]).iterdir())
        for image, label in zip(images, img2label_paths(images), strict=True):
            _, labels, shape, _, _, missing, _, _, corrupt, message = verify_image_label(
                (image, label, "", False, 10, 0, 0, False)
            )
            assert (missing, corrupt, message, shape) == (0, 0, "", (120, 160))
            assert len(labels) == len(Path(label).read_text().splitlines())


def test_labels_are_the_drawn_boxes(signs: Path) -> None:
    recipe = Recipe(images=40, seed=3, imgsz=160)
    for index in range(10):
        drawn = recipe.draw("val", index)
        written = np.loadtxt(signs / f"labels/val/{index:05}.txt", ndmin=2) if drawn.signs else np.zeros((0, 5))
        assert written[:, 0].tolist() == [sign.label for sign in drawn.signs]
        corners = np.hstack((written[:, 1:3] - written[:, 3:] / 2, written[:, 1:3] + written[:, 3:] / 2))
        # Six decimals, centre and half a side: 0.5e-6 + 0.25e-6.
        assert np.allclose(corners, np.array([s.bounds for s in drawn.signs]).reshape(-1, 4), rtol=0, atol=0.76e-6)


def test_pictures_are_the_drawn_ones_but_for_jpeg(signs: Path) -> None:
    drawn = Recipe(images=40, seed=3, imgsz=160).draw("train", 1).image
    read = cv2.imread(str(signs / "images/train/00001.jpg"))[..., ::-1]
    assert read.shape == (120, 160, 3)
    # Quality 90 with halved colour: a mean error of a few levels; red and blue swapped would give tens.
    assert np.abs(read.astype(int) - drawn).mean() < 6


def test_the_same_arguments_give_the_same_files(signs: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "again", images=40, seed=3, imgsz=160)
    assert contents(tmp_path / "again") == contents(signs)


def test_another_seed_gives_other_pictures(signs: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other", images=20, seed=4, imgsz=160)
    mine = {value for name, value in contents(tmp_path / "other").items() if name.endswith(".jpg")}
    assert len(mine) == 20
    assert not mine & set(contents(signs).values())


def test_splits_are_disjoint(signs: Path) -> None:
    pictures = [value for name, value in contents(signs).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 40


def test_a_smaller_set_is_the_beginning_of_a_larger(signs: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "small", images=20, seed=3, imgsz=160)
    small, large = contents(tmp_path / "small"), contents(signs)
    assert all(large[name] == value for name, value in small.items() if name.startswith(("images", "labels")))


def test_a_second_call_draws_nothing(signs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in signs.rglob("*")}
    calls: list[tuple[int, int]] = []
    path = make_dataset(signs, images=40, seed=3, imgsz=160, progress=lambda done, total: calls.append((done, total)))
    assert path == signs / "data.yaml"
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in signs.rglob("*")} == before


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    make_dataset(tmp_path / "x", images=20, imgsz=160, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 20) for i in range(1, 21)]


def test_an_interrupted_call_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "x", images=200, imgsz=160, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_created_and_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a/b/c"):
        assert make_dataset(out, images=20, imgsz=160).is_file()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images": 19}, "images: is 19; expected 20 to 100000"),
        ({"images": 100_001}, "images: is 100001; expected 20 to 100000"),
        ({"seed": -1}, "seed: is -1; expected 0 to 4294967295"),
        ({"imgsz": 100}, "imgsz: is 100; expected a multiple of 32 from 160 to 1280"),
        ({"imgsz": 1312}, "imgsz: is 1312; expected a multiple of 32 from 160 to 1280"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, arguments: dict[str, int], text: str) -> None:
    with pytest.raises(Problem) as caught:
        make_dataset(tmp_path / "x", **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == text
    assert not (tmp_path / "x").exists()


def test_another_data_set_is_not_overwritten(signs: Path) -> None:
    with pytest.raises(Problem) as caught:
        make_dataset(signs, images=60, seed=3, imgsz=160)
    assert str(caught.value) == (
        f"{signs}: holds another data set (images 40, seed 3, imgsz 160, drawing 1); "
        "expected images 60, seed 3, imgsz 160, drawing 1; choose another folder or delete this one"
    )


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(Problem) as caught:
        make_dataset(tmp_path, images=20)
    assert str(caught.value) == (
        f"{tmp_path}: holds other files; expected images 20, seed 0, imgsz 480, drawing 1; "
        "choose another folder or delete this one"
    )
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem) as caught:
        make_dataset(tmp_path / "file", images=20)
    assert str(caught.value) == f"{tmp_path / 'file'}: is not a folder; choose another folder"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem) as caught:
        make_dataset(tmp_path / "file/below", images=20)
    why = str(caught.value)
    assert why.startswith(f"{tmp_path / 'file/below'}: cannot be written (")
    assert why.endswith("); choose another folder")


def test_a_damaged_data_set_is_named(tmp_path: Path) -> None:
    make_dataset(tmp_path / "x", images=20, imgsz=160)
    (tmp_path / "x/labels/val/00002.txt").unlink()
    with pytest.raises(Problem) as caught:
        make_dataset(tmp_path / "x", images=20, imgsz=160)
    assert str(caught.value) == (
        f"{tmp_path / 'x/labels/val'}: holds 4 .txt files; expected 5; delete {tmp_path / 'x'} and draw it again"
    )
