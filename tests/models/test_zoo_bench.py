"""bench.zoo: every architecture has a row, and the exit code says whether all ended as they should."""

from __future__ import annotations

import pytest

from bench import zoo
from fxqat.errors import Problem

EQUAL = {"share": 1.0, "codes": 100, "differing": 0}


def test_names_carry_the_scale_where_an_architecture_has_scales():
    found = set(zoo.architectures("ns"))
    assert {"yolo11n-seg.yaml", "yolo11s-seg.yaml", "yolov8n-ghost-p2.yaml", "yolov9t.yaml", "rtdetr-l.yaml"} <= found
    assert "yolo11.yaml" not in found
    assert "yolov9nt.yaml" not in found


@pytest.mark.parametrize(
    ("result", "code", "row"),
    [
        (EQUAL, 0, "| a | 100.0% | 100 | 0 |"),
        ({**EQUAL, "differing": 3}, 1, "| a | 100.0% | 100 | 3 |"),
        (Problem("a.yaml", "its head is Odd"), 0, "| a | a.yaml: its head is Odd | | |"),
        (RuntimeError("wrong\nmore"), 1, "| a | FAILED: RuntimeError: wrong | | |"),
    ],
)
def test_a_difference_or_an_error_of_ours_fails_the_command(result, code, row, monkeypatch, capsys):
    def whole_way(*given):
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(zoo, "_whole_way", whole_way)
    assert zoo.main(["--weights", "a.yaml"]) == code
    said = capsys.readouterr()
    assert row in said.out
    assert said.err == ("1 did not end as they should: a\n" if code else "")
