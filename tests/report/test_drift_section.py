"""The record of drift on the page: numbers, refusals, and the JSON that says everything again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from records import STAGES, record_of

from fxqat.cli import main
from fxqat.errors import Problem
from fxqat.evaluation.drift_report import read
from fxqat.report.drift_section import Way, whiskers


@pytest.fixture
def record(signs: Path) -> dict[str, Any]:
    return record_of(signs / "signs_ptq.fxqat")


def table(page: str, caption: str) -> list[list[str]]:
    """The rows of the table with that caption, their cells as text."""
    part = page[page.index(f'id="{caption}"') :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_page_shows_every_stage_class_time_and_size(page: str) -> None:
    stages = table(page, "cap-stages")
    assert [row[0] for row in stages] == list(STAGES)
    assert stages[0][1:5] == ["0.3600", "\u2013", "80.0 %", "\u2013"]
    lost = ["0.3560", "-0.40 [-0.90, -0.10]", "76.0 %", "-4.00 [-8.00, +0.50]", "90.0 %", "-0.004 [-0.031, +0.020]"]
    assert stages[4][1:] == [*lost, "1.23 %"]
    assert table(page, "cap-classes")[:2] == [
        ["stop", "12", "0.6100", "0.5850", "-2.50"],
        ["&lt;yield&gt;", "7", "0.5000", "0.4950", "-0.50"],
    ]
    assert table(page, "cap-latency")[5] == [
        *("int8_batch4.onnx", "4", "2", "9.0", "10.0", "13.0", "2.5", "2.00x [1.90, 2.10]"),
    ]
    assert [row[1:] for row in table(page, "cap-memory")] == [["3.50", "321"]] * 3
    assert "the speed of float (2 threads), between 1.90 and 2.10" in page
    assert page.count('class="whisker"') == 4


def test_whiskers_keep_their_order_and_stay_inside() -> None:
    drift = {"points": -3.1, "low": -12.0, "high": 4.0}
    picture = str(whiskers([("float", None), ("<b>", drift)], "mAP50-95"))
    assert "<b>" not in picture.replace("&lt;b&gt;", "")
    start, end = map(float, re.search(r'class="whisker" d="M([\d.]+) \d+H([\d.]+)"', picture).groups())  # type: ignore[union-attr]
    zero, dot = (float(one) for one in re.findall(r'cx="([\d.]+)"', picture))
    assert 130 <= start < dot < zero < end <= 720
    # x is linear in points: the dot divides the whisker as -3.1 divides -12..4
    assert (dot - start) / (end - start) == pytest.approx((12 - 3.1) / 16, abs=0.005)


def test_what_was_not_measured_is_not_shown(record: dict[str, Any]) -> None:
    way = Way({key: value for key, value in record.items() if key not in {"latency", "memory"}})
    assert (way.times, way.memory, way.fastest) == ([], (), None)
    assert Way(record).fastest == Way(record).times[3]  # int8, batch 1, 2 threads


def test_a_record_is_of_the_model_it_is_shown_with(signs: Path, tmp_path: Path, record: dict[str, Any]) -> None:
    model, file = signs / "signs_ptq.fxqat", tmp_path / "drift.json"
    file.write_text(json.dumps(record))
    assert read(file, model) == record
    file.write_text(json.dumps({**record, "sha256": "0"}))
    with pytest.raises(
        Problem, match=r"drift\.json: was measured on another signs_ptq\.fxqat; .*fxqat drift on it again"
    ):
        read(file, model)
    for text in ("{", "[]", json.dumps({"stages": []}), json.dumps({**record, "stages": [{}]})):
        file.write_text(text)
        with pytest.raises(Problem, match=r"is no record of fxqat drift; expected what fxqat drift --json writes"):
            read(file, model)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--drift", "none.json"], "none.json: no such file; expected what fxqat drift --json writes"),
        (["--drift", "x.json", "--stages"], "--stages: would measure what --drift holds"),
        (["--stages"], "--stages: has no images; expected --data with labels"),
        (["--json", "/no/such/folder/x.json"], "its folder does not exist"),
    ],
)
def test_refusals_write_nothing(
    signs: Path, tmp_path: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(signs / "signs_ptq.fxqat"), *words, "-o", str(tmp_path / "x.html"), "-q"]) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_json_says_what_the_page_says(page: str, signs: Path) -> None:
    said = json.loads((signs / "report.json").read_text())
    assert said["verdict"]["headline"] in page
    assert said["stages"] == record_of(signs / "signs_ptq.fxqat")
    assert len(said["policy"]) == page[page.index('id="policy-table"') :].split("</table>")[0].count('<th scope="row">')
    assert said["facts"]["commands"][-1].startswith("fxqat report signs_ptq.fxqat")
    assert said["codes"]["differing"] == 0
    assert said["errors"]["images"] == said["agreement"]["images"] == 2
    assert [one["name"] for one in said["passes"]] == ["canonicalize", "fuse", "assign", "insert", "lower"]
