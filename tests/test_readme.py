"""The README's code runs as it stands there: its rule, its passes, its policy."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import yaml

import fxqat
from fxqat.passes import Rules
from fxqat.policy import Policy

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_policy_decides_yolov8n() -> None:
    (text,) = blocks("yaml")
    qat, _ = fxqat.prepare("yolov8n.yaml", Policy.parse(text, "README.md"))
    assert qat.stage == "qat"


def test_the_rule_fuses_a_model_built_with_leaky_relu(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if block.startswith("# mine.py"))
    (tmp_path / "mine.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert Rules.load("mine.py").fuse[0].name == "conv_bn_leaky"
        content = dict(fxqat.load("yolov8n.yaml").source.architecture) | {"activation": "nn.LeakyReLU(0.1)"}
        Path("yolov8n-leaky.yaml").write_text(yaml.safe_dump(content))
        _, report = fxqat.prepare("yolov8n-leaky.yaml", "float", patterns=["mine.py"])
        assert report["fuse"].report.says.startswith("57 conv_bn_leaky")
        _, report = fxqat.prepare("yolov8n-leaky.yaml", "float")
        assert report["fuse"].report.says.startswith("57 conv_bn,")


def test_the_passes_swap_and_count(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(block for block in blocks("python") if "class SwapActivation" in block)
    readme = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", readme)  # dataclasses look up the module of their class
    exec(compile(code, "README.md", "exec"), vars(readme))
    printed = capsys.readouterr().out
    assert re.search(r"swap_activation .* \d+ activations swapped", printed)
    assert re.search(r"count_operations .* 64 QATConv2d", printed)


def test_no_placeholder_is_left() -> None:
    assert "@@" not in README.read_text()
