"""Completion: what a shell is given, and what it is answered when TAB is pressed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import refused, said

from fxqat.commands.completion import SHELLS
from fxqat.commands.parser import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]


def completed(line: str) -> set[str]:
    """What may stand at the end of ``line``, by the protocol between a shell and argcomplete: on descriptor 8."""
    read, write = os.pipe()
    code = f"import os; os.dup2({write}, 8); from fxqat.cli import main; main()"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    told = {**os.environ, **asked, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    subprocess.run([sys.executable, "-c", code], env=told, pass_fds=[write], check=False, capture_output=True)
    os.close(write)
    with os.fdopen(read) as answer:
        return {word.strip() for word in answer.read().split("\n")} - {""}


@pytest.fixture
def argcomplete():
    return pytest.importorskip("argcomplete", reason="argcomplete is not installed: pip install 'fxqat[completion]'")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_code_of_its_own(shell: str, argcomplete, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "completion", shell)
    assert argcomplete.shellcode(["fxqat"], shell=shell) in out


def test_words_are_completed(argcomplete) -> None:
    assert completed("fxqat ") >= {command.name for command in COMMANDS}
    assert completed("fxqat cal") == {"calibrate"}
    assert completed("fxqat calibrate x.fxqat --im") == {"--images", "--imgsz"}
    assert completed("fxqat completion z") == {"zsh"}


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused(capsys, "completion", "bash") == (
        "fxqat: argcomplete: is not installed; expected the package that completes words; "
        "pip install 'fxqat[completion]'\n"
    )
    assert "invalid choice: 'csh'" in refused(capsys, "completion", "csh")
