"""The page as a file: whole, offline, complete, and sound for a screen reader."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from fxqat.cli import main
from fxqat.report import collect as collecting
from fxqat.report.collect import ReportOptions
from fxqat.report.page import decibels, number, percent, render

VOID = {"meta", "link", "input", "br", "img"}
SVG_LEAVES = {"path", "rect", "circle", "polyline", "use", "image"}  # written <path/>


class Outline(HTMLParser):
    """Elements in order, with a check that each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID | SVG_LEAVES:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in SVG_LEAVES:
            return
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def every(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_it_is_whole_and_small(page: str, outline: Outline) -> None:
    assert page.startswith("<!doctype html>")
    assert outline.open == []
    assert len(page.encode()) < 5e6


def test_it_asks_nothing_of_a_network(page: str, outline: Outline) -> None:
    assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", page) == []
    addresses = [a[key] for _, a in outline.found for key in ("src", "href", "action", "srcset") if key in a]
    assert [one[:24] for one in addresses if not one.startswith(("#", "data:"))] == []
    assert "default-src 'none'" in page


def test_names_and_references_are_sound(outline: Outline) -> None:
    ids = [a["id"] for _, a in outline.found if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in outline.found:
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key, ids[0]) in ids
        target = attributes.get("href", "")
        assert not target.startswith("#") or target[1:] in ids
    labelled = {a["for"] for a in outline.every("label")}
    assert {a["id"] for a in outline.every("input", "select")} <= labelled


def test_landmarks_headings_and_tables(page: str, outline: Outline) -> None:
    for landmark in ("header", "nav", "main", "footer"):
        assert len(outline.every(landmark)) == 1
    levels = [int(tag[1]) for tag, _ in outline.found if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.count("<caption") == page.count("<table")
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in outline.every("svg"))
    assert all("scope" in a for a in outline.every("th"))


def test_it_says_what_was_measured(page: str) -> None:
    assert "integers in ONNX Runtime equal the reference's" in html.unescape(page)
    assert "mAP50-95 goes from" in page
    assert "objects that float finds on 2 images" in page
    assert page.count('class="pair"') == 2
    assert page.count("data:image/jpeg;base64,") == 2
    assert "role: box_out" in page
    assert "carry most of the loss in mAP" in page
    commands = re.search(r'<pre id="commands"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert commands
    assert [line.split()[1] for line in commands[1].splitlines()] == ["prepare", "calibrate", "export", "report"]
    assert str(Path.home()) not in page
    assert "/tmp/" not in page


def test_it_says_how_its_pictures_were_chosen(page: str) -> None:
    assert page.count("<p>Shown: 2 of 4 validation images, those on which the two models differ most.</p>") == 1


def test_every_site_has_its_row_its_node_and_its_details(page: str) -> None:
    sites = json.loads(re.search(r'id="sites">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert len(sites) == page.count('class="node ')
    assert {"Operation", "Precision", "Share of the error"} <= sites["model.0.conv"].keys()
    table = page[page.index('id="policy-table"') :]
    assert table[: table.index("</table>")].count('<th scope="row">') == len(sites)
    assert 'class="node float" id=' in page
    assert 'class="node int" id=' in page
    assert page.count('<svg class="spark"') > 150


def test_every_pass_shows_what_it_changed(page: str) -> None:
    names = re.findall(r'<span class="name">(\w+)</span>', page)
    assert names == ["canonicalize", "fuse", "assign", "insert", "lower"]
    assert '<span class="ins">+model.0.conv = QATConv2d(images)' in page
    assert '<span class="del">-model.0.conv = Conv2d(images)' in page


def test_a_report_without_data_measures_nothing_and_escapes_names(signs: Path) -> None:
    content = collecting.collect(
        ReportOptions(model=signs / "signs_ptq.fxqat"), "fxqat report <script>alert(1)</script>"
    )
    bare = render(content)
    assert Outline(bare).open == []
    assert "Not measured yet" in bare
    assert "<script>alert(1)" not in bare
    assert 'id="errors"' not in bare
    assert 'value="error"' not in bare


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["none.fxqat"], "none.fxqat: no such file"),
        (["MODEL", "--val", "-1"], "--val: -1; expected 0 or more"),
        (["MODEL", "--images", "0"], "--images: 0; expected 1 or more"),
        (["MODEL", "-o", "/no/such/folder/x.html"], "its folder does not exist"),
        (["MODEL", "--data", "nowhere.yaml", "--val", "0"], "nowhere.yaml"),
        (["MODEL", "--imgsz", "50"], "multiple of 32"),
    ],
)
def test_refusals_write_nothing(
    signs: Path, tmp_path: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(signs / "signs_ptq.fxqat")
    given = [model if word == "MODEL" else word for word in words]
    out = [] if "-o" in words else ["-o", str(tmp_path / "x.html")]
    assert main(["report", *given, *out, "-q"]) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_numbers_as_words() -> None:
    assert [decibels(value) for value in (None, 31.26, float("inf"))] == ["\u2013", "31.3", "∞"]
    assert [percent(value) for value in (None, 0.0, 0.256, 0.00004, 1e-9)] == [
        "\u2013",
        "0.0 %",
        "25.6 %",
        "0.0040 %",
        "1e-9",
    ]
    assert number(1234.5) == "1.23e+03"


def test_val_measures_the_same(signs: Path, tmp_path: Path) -> None:
    """The report's accuracy is that of ``fxqat val`` on the same images, digit by digit."""
    out, data = tmp_path / "val.json", str(signs / "data" / "data.yaml")
    words = ["val", str(signs / "signs_int8.onnx"), "--data", data, "--images", "4", "--json", str(out), "-q"]
    assert main(words) == 0
    (row,) = json.loads(out.read_text())
    assert json.loads((signs / "report.json").read_text())["map5095"]["after"] == row["map5095"]
