"""The command line's help: its groups, its examples, its lists, its versions."""

from __future__ import annotations

import platform
import shlex
from importlib import metadata

import pytest

import fxqat
from fxqat.cli import main
from fxqat.commands.command import Command
from fxqat.commands.parser import COMMANDS, GROUPS, command_line
from fxqat.models.activations import ACTIVATIONS
from fxqat.policy.resources import shipped
from fxqat.quant.spec import METHODS
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets import TARGETS

BY_NAME = {command.name: command for command in COMMANDS}


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line prints that ends by itself, with exit code 0."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_list_is_grouped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # a line a command
    lines = shown(capsys, "--help").splitlines()
    assert [group.title for group in GROUPS] == ["make", "train", "measure", "explain", "demo"]
    for group in GROUPS:
        start = lines.index(f"{group.title}: {group.purpose}") + 1
        listed = [line.split() for line in lines[start : start + len(group.commands)]]
        assert [words[0] for words in listed] == [one.name for one in group.commands]
        assert [" ".join(words[1:]) for words in listed] == [one.help for one in group.commands]
    assert len(BY_NAME) == len(COMMANDS), "a command stands in one group"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_list_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = shown(capsys, "--help").partition("the usual path:")[0]
    assert max(map(len, text.splitlines())) <= max(columns, len("demo: with nothing at hand") + 60)


def commands_in(text: str) -> list[list[str]]:
    """The command lines of ``text``, without what is said after them."""
    lines = [line.strip().partition("  ")[0] for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("fxqat ") and "COMMAND" not in line]


def test_the_usual_path_is_made_of_commands_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    path = commands_in(shown(capsys, "--help").partition("the usual path:")[2])
    assert [words[0] for words in path] == ["run", "prepare", "calibrate", "train", "export", "val", "verify"]
    for words in path:
        assert command_line(words).run is BY_NAME[words[0]].run


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_help_ends_with_an_example_that_parses(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, command.name, "--help")
    head, _, tail = text.rpartition("\nexample:\n")
    assert head
    assert tail.splitlines() == [f"  {line}" for line in command.example.splitlines()]
    found = commands_in(tail)
    assert found
    for words in found:
        assert command_line(words).run is command.run


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("prepare", [*TARGETS, *shipped("policies")]),
        ("calibrate", METHODS),
        ("export", TARGETS),
        ("swap", ACTIVATIONS),
        ("verify", RUNTIMES),
    ],
)
def test_help_lists_what_the_code_has(command: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, command, "--help").replace("-\n", "-").split())
    assert [name for name in names if name not in text] == []


def test_versions_of_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(line.split() for line in shown(capsys, "--version").splitlines())
    assert (found["fxqat"], found["python"]) == (fxqat.__version__, platform.python_version())
    for name in ("torch", "ultralytics", "onnxruntime"):
        assert found[name] == metadata.version(name)
