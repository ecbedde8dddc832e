"""A .tflite file's first run, in a process of its own: how its end is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refusal

from fxqat.runtime.refusals import guarded
from fxqat.runtime.tflite import first_run

PROGRAMS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "it crashes (SIGSEGV)",
    "import os; os.abort()": "it crashes (SIGABRT)",
    "print('operand 2 of node 3 has no shape'); raise SystemExit(1)": "operand 2 of node 3 has no shape",
    "raise SystemExit(7)": "it ends with code 7",
    "import time; time.sleep(60)": "it does not end within 1 s",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_how_it_ends_is_told_in_one_line(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(first_run, "__file__", str(tmp_path / "program.py"))
    if "sleep" in program:
        monkeypatch.setattr(first_run, "_PATIENCE", 1)
    path = tmp_path / "x.tflite"
    said = refusal(guarded, lambda: first_run.check(b"", xnnpack=True), path, "LiteRT")
    assert said == f"{path}: LiteRT cannot run it: {PROGRAMS[program]}; export it again"


@pytest.mark.parametrize("xnnpack", [True, False])
def test_a_good_file_runs_and_a_bad_one_is_refused_in_the_words_of_litert(xnnpack: bool) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: no .tflite is run")
    from tflite_files import File

    good = File()
    good.tensor("x", (1, 4), (0.5, 0))
    good.tensor("y", (1, 4), (1.0, 0))
    good.operation("QUANTIZE", ["x"], "y")
    first_run.check(good.content(["x"], ["y"]), xnnpack=xnnpack)
    with pytest.raises(RuntimeError) as caught:
        first_run.check(b"TFL3" * 8, xnnpack=xnnpack)
    assert "odel" in str(caught.value)


def test_a_file_of_a_later_schema_is_read_and_refused_by_litert() -> None:
    """An operator that this schema does not know, and a tensor without a shape, as a scalar is written."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: no .tflite is read")
    from tflite_files import File

    from fxqat.runtime.tflite.tflite_file import TFLiteFile

    made = File()
    made.tensor("x", (), (0.5, 0))
    made.tensor("y", (), (1.0, 0))
    made.operation("QUANTIZE", ["x"], "y")
    made.graph.tensors[0].shape = None
    made.model.operatorCodes[0].builtinCode = 100_000
    content = made.content(["x"], ["y"])
    file = TFLiteFile(content)
    assert file.shape(0) == ()
    assert [kind for _, kind in file.made()] == ["INPUT", "OPERATOR_100000"]
    with pytest.raises(RuntimeError) as caught:
        first_run.check(content, xnnpack=True)
    assert "100000" in str(caught.value)
