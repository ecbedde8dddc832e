"""The page of each task: what its predictions are drawn with, and in which words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import fxqat
from fxqat.models.image_size import ImageSize
from fxqat.report.collect import Content, ReportOptions, collect
from fxqat.report.detections import Agreement, Detection
from fxqat.report.measurements import Measurements
from fxqat.report.page import render
from fxqat.report.pictures import Shown, picture
from fxqat.report.verdict import judge

BOX = (8.0, 8.0, 40.0, 40.0)
MASK = np.zeros((64, 64), bool)
MASK[8:40, 8:40] = True
POINTS = np.array([[10 + index, 12 + 2 * index, 0.9] for index in range(17)], np.float32)
CORNERS = ((8.0, 24.0), (24.0, 8.0), (40.0, 24.0), (24.0, 40.0))
OBJECTS = {
    "segment": ({"box": BOX, "mask": MASK}, {"mask"}),
    "pose": ({"box": BOX, "points": POINTS}, {"bones", "points"}),
    "obb": ({"box": BOX, "corners": CORNERS}, {"turned"}),
    "detect": ({"box": BOX}, set()),
}


@pytest.fixture(scope="module")
def content(prepared, tmp_path_factory) -> Content:
    file = tmp_path_factory.mktemp("tasks") / "n.fxqat"
    fxqat.save(prepared, file)
    return collect(ReportOptions(model=file), "fxqat report n.fxqat")


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 128, np.uint8))
    return tmp_path / "grey.png"


def page_of(content: Content, grey: Path, before: list[Detection], after: list[Detection], covers: str) -> str:
    drawn = picture(grey, (before, after), {0: "cat", 1: "<dog>"}, ImageSize.of(64))
    same = Agreement(images=1, before=len(before), after=len(after), kept=drawn.kept, covers=covers)
    page = render(replace(content, shown=Shown(pictures=(drawn,), agreement=same), floats="float", runner="torch"))
    return page[page.index('<section id="detections"') :].partition("</section>")[0]


@pytest.mark.parametrize("task", OBJECTS)
def test_objects_are_drawn(content, grey, task):
    what, kinds = OBJECTS[task]
    found, other = Detection(index=0, score=0.9, **what), Detection(index=1, score=0.5, **what)
    section = page_of(content, grey, [found, other], [found], "masks" if task == "segment" else "boxes")
    assert set(re.findall(r'<path class="(\w+)"', section)) == kinds
    assert section.count('<g class="mark kept">') == 2
    assert section.count('<g class="mark lost">') == 1
    assert section.count("<rect") == (0 if task == "obb" else 3), "turned boxes are drawn turned"
    assert "&lt;dog&gt; 0.50 lost" in section
    assert "2 detections" in section
    assert "grey.png: 1 of 2 found again." in section
    assert ("masks overlap" in section) == (task == "segment")


def test_classes_are_listed(content, grey):
    cat, dog = (Detection(index=index, score=0.7, others=((1 - index, 0.3),)) for index in (0, 1))
    section = page_of(content, grey, [cat], [dog], "")
    assert [words.strip() for words in re.findall(r"<text[^>]*>([^<]+)</text>", section)] == [
        *("cat 0.70 lost", "&lt;dog&gt; 0.30"),
        *("&lt;dog&gt; 0.70 new", "cat 0.30"),
    ]
    assert "grey.png: another class." in section
    assert "Classes, before and after" in section
    assert " detection" not in section
    assert "grey.png: the same class." in page_of(content, grey, [cat], [cat], "")


def test_words_of_the_metric_and_of_classes():
    same = Agreement(images=40, before=40, after=40, kept=39, shift=-0.012, covers="")
    verdict = judge(Measurements(agreement=same, metric="top-1"))
    assert verdict.headline == "Gives the class that float gives"
    assert verdict.reasons == (
        "Of 40 images, 39 keep the class that float gives them (97.5%); its probability changes by -0.012 on average.",
    )
    masks = Agreement(images=4, before=40, after=41, kept=38, shift=0.01, overlap=0.9, covers="masks")
    (reason,) = judge(Measurements(agreement=masks)).reasons
    assert reason.endswith(
        "38 are found again (95.0%), 3 more are found by the quantized model alone; scores change by +0.010 on "
        "average, masks overlap by 90.0%."
    )
