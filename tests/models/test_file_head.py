"""What an exported file's metadata say of its head, in a stranger's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refusal

from fxqat.models.families import FAMILIES
from fxqat.models.file_head import file_head

PATH = Path("x.onnx")
NAMES = "its metadata 'names' is no mapping of numbers to names"
FEW = "its metadata 'names' is of {} classes; expected a name for each of 0, 1 ..."


@pytest.mark.parametrize("task", FAMILIES)
def test_a_head_of_each_task(task: str) -> None:
    metadata = {"task": task, "kpt_shape": "[17, 3]", "stride": "64"}
    head = file_head(PATH, metadata, "{0: 'a', 1: 2}", [(1, 300, 6), (1, 32, 8, 8)])
    assert (head.family, head.spec.classes, head.stride) == (FAMILIES[task], 2, 64)
    assert head.names == {0: "a", 1: "2"}
    assert head.spec.keypoints == ((17, 3) if task == "pose" else (0, 0))


def test_a_detector_of_the_usual_stride_is_what_is_meant_by_nothing() -> None:
    head = file_head(PATH, {}, {"0": "a"}, [])
    assert (head.family.task, head.stride, head.names) == ("detect", 32, {0: "a"})


@pytest.mark.parametrize(
    ("names", "says"),
    [
        *((text, NAMES) for text in ("", "[1, 2", "['a']", "{'x': 'a'}", "{None: 'a'}", "{[]: 1}", "\0", "(" * 10_000)),
        *((text, NAMES) for text in ("{1e999: 'a'}", "open('x')")),
        ("{}", FEW.format(0)),
        ("{0: 'a', 2: 'b'}", FEW.format(2)),
    ],
)
def test_names_that_are_none(names: str, says: str) -> None:
    assert refusal(file_head, PATH, {}, names, []) == f"{PATH}: {says}"


@pytest.mark.parametrize("points", ["", "5", "[17]", "[17, 'a']", "[17, -3]", "{}"])
def test_key_points_that_are_none(points: str) -> None:
    said = refusal(file_head, PATH, {"task": "pose", "kpt_shape": points}, "{0: 'a'}", [])
    assert said.startswith(f"{PATH}: its metadata describe no head (")
    assert said.endswith("); expected Ultralytics' metadata")
    assert "\n" not in said


@pytest.mark.parametrize("stride", ["", "-32", "3.5", "²", None])
def test_a_stride_that_is_none(stride: str | None) -> None:
    said = refusal(file_head, PATH, {"stride": stride}, "{0: 'a'}", [])
    assert said == f"{PATH}: its metadata 'stride' is '{stride}'; expected a whole number of pixels"


def test_a_task_that_no_family_has() -> None:
    said = refusal(file_head, PATH, {"task": "depth"}, "{0: 'a'}", [])
    assert said == f"{PATH}: is a model for the task 'depth'; expected one of: {', '.join(FAMILIES)}"
