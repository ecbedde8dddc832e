"""Images as people bring them: a sample of ``python -m bench.odd_images``."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from bench.odd_images import DAMAGED, READABLE, picture, trials, upright
from fxqat.data.images import Unreadable, read_pixels


def test_what_can_be_read_is_right_and_the_rest_is_one_line(tmp_path):
    counts = trials(tmp_path, len(READABLE) + len(DAMAGED), seed=5)
    assert {kind: dict(row) for kind, row in counts.items()} == {
        **{kind: {"right": 1} for kind in READABLE},
        **{kind: {"refused": 1} for kind in DAMAGED},
    }


def test_the_script_tells_a_turned_picture_from_another(tmp_path):
    shown = picture(random.Random(0), 48, 96)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(shown).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(upright(tmp_path / "turned.png"), shown[::-1, ::-1])
    # quarters differ, so no turn or mirror image of the picture is near it
    others = (shown[::-1], shown[:, ::-1], shown[::-1, ::-1])
    assert min(np.abs(shown.astype(float) - one).mean() for one in others) > 30


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bytes_after_the_end_do_no_harm(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(picture(random.Random(0))).save(path)
    wanted = read_pixels(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert np.array_equal(read_pixels(path), wanted)


def test_a_decoder_says_nothing_of_a_png_that_is_cut_short(tmp_path, capfd):
    path = tmp_path / "x.png"
    Image.fromarray(picture(random.Random(0), 96, 96)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable):
        read_pixels(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_jpeg_that_is_cut_short_is_known_whatever_it_is_called(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(picture(random.Random(0))).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Unreadable, match=r"^cut short: "):
        read_pixels(path)
