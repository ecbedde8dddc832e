"""The mirrored split: pictures and boxes change sides, twice gives what was there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from refusals import refusal

from bench.mirror import main, mirrored
from fxqat.data import images


def mirror(data: Path, folder: Path) -> Path:
    assert main(["--data", str(data), "-o", str(folder)]) == 0
    return folder / "data.yaml"


def boxes(path: Path) -> np.ndarray:
    """Class, x, y, width, height of each line."""
    return np.loadtxt(Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt"), ndmin=2)


def test_twice_mirrored_is_the_same(tiny_data, tmp_path, capsys):
    once = mirror(tiny_data, tmp_path / "once")
    twice = mirror(once, tmp_path / "twice")
    before, half, after = (images.image_paths(data, split="val").paths for data in (tiny_data, once, twice))
    assert len(before) == len(half) == len(after) > 0
    for path, other, again in zip(before, half, after, strict=True):
        picture = cv2.imread(str(path))
        assert np.array_equal(cv2.imread(str(other)), picture[:, ::-1])
        assert np.array_equal(cv2.imread(str(again)), picture)
        assert boxes(other)[:, 1] == pytest.approx(1 - boxes(path)[:, 1])
        assert np.array_equal(np.delete(boxes(other), 1, 1), np.delete(boxes(path), 1, 1))
        assert boxes(again) == pytest.approx(boxes(path))


@pytest.mark.parametrize("line", ["0 0.1 0.2 0.3 0.4 0.5", "0 0.1 0.2 0.3 0.4 0.5 0.6 2", "0 left 0.2 0.3 0.4", "0"])
def test_a_label_that_is_no_box_is_refused(line):
    assert (
        refusal(mirrored, f"0 0.5 0.5 0.1 0.1\n{line}\n", Path("a.txt"))
        == f"a.txt:2: is {line!r}; expected class x y width height, or class x y x y x y ..."
    )


def test_a_polygon_is_mirrored_point_by_point():
    given, there = "3 0.1 0.2 0.4 0.2 0.3 0.9\n", "3 0.900000 0.2 0.600000 0.2 0.700000 0.9\n"
    assert mirrored(given, Path("a.txt")) == there


def test_a_data_set_without_names_is_refused(tmp_path, capsys):
    (tmp_path / "data.yaml").write_text("val: images\n")
    assert main(["--data", str(tmp_path / "data.yaml"), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / 'data.yaml'}: 'names' is not a list of classes; expected names numbered from 0, without gaps\n"
    )
    assert not (tmp_path / "out").exists()
