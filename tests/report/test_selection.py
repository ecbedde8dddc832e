"""Which images a page shows: those on which two models differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectors import NAMES as COLOURS
from detectors import find_colours, shifted
from torch import Tensor

from fxqat.evaluation.accuracy import evaluate
from fxqat.evaluation.predictor import Predictor
from fxqat.models.families import FAMILIES
from fxqat.models.family import HeadSpec
from fxqat.models.image_size import ImageSize
from fxqat.report.detections import Detection
from fxqat.report.image_differences import ImageDifferences, difference
from fxqat.report.predictions import CONFIDENCE
from fxqat.report.selection import ImageSelection, most_different

NAMES = {0: "cat", 1: "dog"}
SIZE = ImageSize.of(64)
BOX, HALF, FAR = (8.0, 8.0, 40.0, 40.0), (8.0, 8.0, 40.0, 24.0), (44.0, 44.0, 60.0, 60.0)


def thing(score: float, box: tuple[float, ...] = BOX, index: int = 0) -> Detection:
    return Detection(index=index, score=score, box=box)


def guess(index: int, score: float) -> Detection:
    """Of a whole image."""
    return Detection(index=index, score=score)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([], [], None),
        ([thing(0.9)], [thing(0.9)], 0.0),
        ([thing(0.9)], [thing(0.7)], 0.2),
        ([thing(0.8)], [thing(0.8, HALF)], 0.5),
        ([thing(0.9)], [], 0.9 - CONFIDENCE),
        ([thing(0.26)], [], 0.26 - CONFIDENCE),  # hardly found before
        ([], [thing(0.9)], 0.9 - CONFIDENCE),
        ([thing(0.9)], [thing(0.9, index=1)], 0.9 - CONFIDENCE),
        # (0.9 + 0.9) * 0 + 0.6 * (0.6 - 0.25), over 0.9 + 0.9 + 0.6
        ([thing(0.9), thing(0.6, FAR)], [thing(0.9)], 0.6 * 0.35 / 2.4),
        ([guess(0, 0.9)], [guess(0, 0.6)], 0.3),
        ([guess(0, 0.51)], [guess(1, 0.5)], 1.0),
    ],
)
def test_the_difference_on_an_image(before: Sequence[Detection], after: Sequence[Detection], wanted: float) -> None:
    assert difference((before, after)) == pytest.approx(wanted)
    assert difference((after, before)) == pytest.approx(wanted), "neither model is the measure of the other"


def test_the_most_different_come_first_and_equal_ones_in_their_order() -> None:
    a, b, c, d, e = (Path(name) for name in "abcde")
    assert most_different({a: 0.1, b: None, c: 0.5, d: 0.1, e: 0.0}) == [c, a, d, e]


def detector(scores: dict[int, float], task: str = "detect") -> Predictor:
    """Finds a cat on images by the grey of their first pixel, as sure as ``scores`` says; and nothing on others."""

    def predict(images: Tensor) -> Tensor:
        found = [scores.get(round(float(image[0, 0, 0]) * 255), 0.0) for image in images]
        if task == "classify":
            return torch.tensor([[score, 1 - score] for score in found])
        return torch.tensor([[[24.0], [24.0], [32.0], [32.0], [score], [0.0]] for score in found])

    return Predictor(name="m", predict=predict, names=NAMES, family=FAMILIES[task], spec=HeadSpec(classes=len(NAMES)))


@pytest.fixture
def greys(tmp_path: Path) -> list[Path]:
    """Images 0.png to 5.png, of as many shades of grey."""
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((64, 64, 3), 10 * index, np.uint8))
    return paths


SURE = {0: 0.9, 10: 0.9, 20: 0.9, 30: 0.9, 40: 0.9}  # nothing on 5.png
LOSSY = {**SURE, 10: 0.8, 30: 0.3, 40: 0.8}


def selection(count: int, before: Predictor | None = None, after: Predictor | None = None) -> ImageSelection:
    before, after = before or detector(SURE), after or detector(LOSSY)
    return ImageSelection(before=before, after=after, names=NAMES, imgsz=SIZE, count=count)


def test_of_the_images_compared_those_that_differ_most_are_shown(greys: list[Path]) -> None:
    done: list[int] = []
    found = selection(3).shown([*greys, greys[0].with_name("none.png")], {}, done.append)
    assert [one.name for one in found.pictures] == ["3.png", "1.png", "4.png"]
    assert found.chosen == "Shown: 3 of 6 images that were compared, those on which the two models differ most."
    assert done == [1, 2, 3, 4, 5, 6]
    same = found.agreement
    assert (same.images, same.before, same.after, same.kept, same.covers) == (6, 5, 5, 5, "boxes")


def test_of_the_images_validated_where_there_are_some(greys: list[Path]) -> None:
    validated = {greys[4]: 0.2, greys[2]: 0.0, greys[5]: None, greys[3]: 0.4}
    found = selection(2).shown(greys[:1], validated, lambda done: None)
    assert [one.name for one in found.pictures] == ["3.png", "4.png"]
    assert found.chosen == "Shown: 2 of 4 validation images, those on which the two models differ most."
    assert found.agreement.images == 1


@pytest.mark.parametrize("count", [6, 7])
def test_where_all_are_shown_they_keep_their_order_and_nothing_was_chosen(greys: list[Path], count: int) -> None:
    found = selection(count).shown(greys, {}, lambda done: None)
    assert [one.name for one in found.pictures] == [f"{index}.png" for index in range(5)], "nothing is on the last"
    assert found.chosen == ""


def test_without_pictures_nothing_is_said_of_them(greys: list[Path]) -> None:
    found = selection(0).shown(greys, {}, lambda done: None)
    assert (found.pictures, found.chosen, found.agreement.images) == ((), "", 6)


def test_the_one_image_with_another_class_is_shown_first(greys: list[Path]) -> None:
    before = detector({**SURE, 50: 0.9}, "classify")
    after = detector({**SURE, 50: 0.9, 20: 0.45, 40: 0.6}, "classify")
    found = selection(2, before, after).shown(greys, {}, lambda done: None)
    assert [one.name for one in found.pictures] == ["2.png", "4.png"]
    assert [one.kept for one in found.pictures] == [0, 1]


def stack(paths: Sequence[Path]) -> Tensor:
    return torch.stack([torch.from_numpy(cv2.imread(str(path))).permute(2, 0, 1) / 255 for path in paths])


def test_differences_are_noted_while_both_predict_in_batches_of_their_own(greys: list[Path]) -> None:
    noted, images = ImageDifferences(), stack(greys)
    first, second = noted.first(detector(SURE)), noted.second(detector(LOSSY))
    before = torch.cat([first(images[:4]), first(images[4:])])
    after = torch.cat([second(images[index : index + 1]) for index in range(6)])
    assert torch.equal(before, detector(SURE)(images)), "what is predicted stays as it is"
    assert torch.equal(after, detector(LOSSY)(images))
    assert noted.values == [0, pytest.approx(0.1), 0, pytest.approx(0.6), pytest.approx(0.1), None]


def test_what_is_noted_holds_no_masks(greys: list[Path]) -> None:
    """They would not fit in memory for a data set."""
    outputs = torch.tensor([[24.0, 24, 32, 32, 0.9, 0.1, 1.0]]).T[None], torch.ones(1, 1, 16, 16)
    spec = HeadSpec(classes=len(NAMES), masks=1)
    masked = Predictor(name="m", predict=lambda images: outputs, names=NAMES, family=FAMILIES["segment"], spec=spec)
    noted = ImageDifferences()
    noted.first(masked)(torch.zeros(1, 3, 64, 64))
    (one,) = noted._first[0]
    assert (one.mask, one.box) == (None, (8.0, 8.0, 40.0, 40.0))
    noted.second(replace(masked, predict=lambda images: (outputs[0] * 1.0, outputs[1])))(torch.zeros(1, 3, 64, 64))
    assert noted.values == [0.0]
    found = selection(1, masked, masked).shown(greys[:1], {}, lambda done: None)
    assert (found.agreement.kept, found.agreement.covers) == (1, "masks")


def test_a_validation_notes_every_image(tiny_data: Path) -> None:
    noted = ImageDifferences()
    one, other = (Predictor(name="m", predict=predict, names=COLOURS) for predict in (find_colours, shifted(3)))
    before = evaluate(noted.first(one), tiny_data, imgsz=96, batch=5)
    after = evaluate(noted.second(other), tiny_data, imgsz=96, batch=1)
    assert [match.image for match in before.matches] == [match.image for match in after.matches]
    assert len(noted.values) == before.images
    assert all(0 < value < 1 for value in noted.values), "boxes of about 20 pixels, 3 to the right"
