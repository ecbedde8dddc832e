"""The examples of rules and passes do what their pages say."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import yaml
from docs.blocks import REPOSITORY, blocks

import fxqat
from fxqat.passes import Rules

HOW_TO = REPOSITORY / "docs" / "how-to"


def python(page: str, begins: str) -> str:
    return next(one.text for one in blocks(HOW_TO / page) if one.language == "python" and one.text.startswith(begins))


def test_the_rule_fuses_a_model_built_with_leaky_relu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(python("add-a-rule.md", "# mine.py"))
    monkeypatch.chdir(tmp_path)
    assert Rules.load("mine.py").fuse[0].name == "conv_bn_leaky"
    content = dict(fxqat.load("yolov8n.yaml").source.architecture) | {"activation": "nn.LeakyReLU(0.1)"}
    Path("yolov8n-leaky.yaml").write_text(yaml.safe_dump(content))
    _, plain = fxqat.prepare("yolov8n-leaky.yaml", "float")
    _, report = fxqat.prepare("yolov8n-leaky.yaml", "float", patterns=["mine.py"])
    (count,) = re.findall(r"^(\d+) conv_bn,", plain["fuse"].report.says)
    assert report["fuse"].report.says.startswith(f"{count} conv_bn_leaky")


def test_the_passes_swap_and_count(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # dataclasses look up the module of their class
    exec(compile(python("add-a-pass.md", "from collections"), "add-a-pass.md", "exec"), vars(page))
    printed = capsys.readouterr().out
    assert re.search(r"swap_activation .* 1 activations swapped", printed)
    assert re.search(r"count_operations .* \d+ QATConv2d", printed)
