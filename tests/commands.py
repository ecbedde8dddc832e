"""Commands as a user gives them, and what they answer."""

from __future__ import annotations

import pytest

from fxqat.cli import main


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must succeed; what it printed."""
    capsys.readouterr()
    assert main(list(words)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must be refused; its one line."""
    capsys.readouterr()
    try:
        code = main(list(words))
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err
