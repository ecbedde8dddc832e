"""bench.profile: every operation that ONNX Runtime executes, its kind, its site and its time."""

from __future__ import annotations

import json

import pytest

from bench.profile import by_kind, main, profile, table


def test_every_operation_has_its_kind_site_and_time(exported, tmp_path, capsys):
    found = profile(exported, threads=1, runs=3)
    kinds = {kind: count for kind, count, _ in by_kind(found)}
    assert kinds["QLinearConv"] == 63
    assert {"model.0.conv", "model.22.cv2.0.2"} <= {one.site for one in found if one.kind == "QLinearConv"}
    assert all(one.microseconds >= 0 for one in found)
    assert sum(us for *_, us in by_kind(found)) == pytest.approx(sum(one.microseconds for one in found))
    words = table(found, rows=3)
    assert words.count("\n") == len(kinds) + 2 + 1 + 2 + 3, "kinds, their total, and three operations"
    assert main([str(exported), "--runs", "1", "--json", str(tmp_path / "p.json")]) == 0
    assert len(json.loads((tmp_path / "p.json").read_text())) == len(found)
    assert main([str(tmp_path / "no.onnx")]) == 2
    assert "no.onnx: no such file; expected an ONNX model" in capsys.readouterr().err
