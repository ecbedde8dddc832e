"""An image's size: every form says the same, what a stride forbids names its neighbours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fxqat.models.image_size import DEFAULT_SIZE, ImageSize

SIDES = st.integers(1, 4096)
STRIDES = st.sampled_from([8, 32, 64])


@given(SIDES, SIDES)
def test_every_form_says_the_same(height, width):
    wanted = ImageSize(height=height, width=width)
    texts = [form.format(height, width) for form in ("{},{}", "{}x{}", "{} {}", "{} x {}", "[{}, {}]", " {}, {} ")]
    for form in ((height, width), [height, width], wanted, wanted.plain, str(wanted), *texts):
        assert ImageSize.of(form) == wanted


@given(SIDES)
def test_one_side_is_a_square(side):
    found = ImageSize.of(side)
    assert (found.shape, found.is_square, found.plain, str(found)) == ((side, side), True, side, f"{side}")
    assert ImageSize.of(f"{side}") == ImageSize.of([side]) == found


def test_height_comes_first():
    found = ImageSize.of("384,640")
    assert (found.height, found.width, found.longest, found.pixels) == (384, 640, 640, 245760)
    assert (found.plain, str(found)) == ([384, 640], "384x640")
    assert not found.is_square
    assert DEFAULT_SIZE.plain == 640


@given(SIDES, SIDES, STRIDES)
def test_what_a_stride_forbids_names_legal_neighbours(height, width, stride):
    size = ImageSize(height=height, width=width)
    if height % stride == width % stride == 0:
        assert size.checked(stride) is size
        return
    words = refusal(size.checked, stride)
    start = f"imgsz {size}: is not a multiple of {stride}; use "
    assert words.startswith(start)
    for legal in map(ImageSize.parse, words.removeprefix(start).split(" or ")):
        assert legal.checked(stride) is legal
        # a side that is legal stays; one that is not moves by less than a stride, or up to the least legal side
        gaps = [abs(one - other) for one, other in zip(legal.shape, size.shape, strict=True)]
        assert all(
            gap < stride and (gap == 0) == (side % stride == 0) for gap, side in zip(gaps, size.shape, strict=True)
        )


@pytest.mark.parametrize(
    ("given_size", "words"),
    [
        (630, "imgsz 630: is not a multiple of 32; use 608 or 640"),
        (1, "imgsz 1: is not a multiple of 32; use 32"),
        ((360, 640), "imgsz 360x640: is not a multiple of 32; use 352x640 or 384x640"),
        ((370, 630), "imgsz 370x630: is not a multiple of 32; use 352x608 or 384x640"),
    ],
)
def test_not_a_multiple(given_size, words):
    assert refusal(ImageSize.of(given_size).checked, 32) == words


@pytest.mark.parametrize(
    "value",
    [0, -64, True, 6.4, None, "", "wide", "384x", "1,2,3", "-64", "6e2", "³", (), (1, 2, 3), (64, 0), ("a", "b")],
)
def test_what_is_no_size(value):
    words = refusal(ImageSize.of, value)
    assert words.startswith("imgsz ")
    assert words.endswith(
        "is no size of an image; expected height and width in pixels, such as 640, 384,640 or 384x640"
    )
