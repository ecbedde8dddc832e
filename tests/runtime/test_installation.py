"""What fxqat doctor finds: the same as those say who know, for this machine and for others."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from commands import said

import fxqat
from fxqat.runtime import installation
from fxqat.runtime.exactness import target_here
from fxqat.runtime.installation import Finding, findings, optional_packages
from fxqat.runtime.processor import processor
from fxqat.runtime.runtime import Runtime
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets import TARGETS
from fxqat.version import installed

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Finding]:
    return {(one.topic, one.name): one for one in findings()}


def test_every_target_says_whether_it_is_exact_here(found):
    told = {name: (one.works, one.detail) for (topic, name), one in found.items() if topic == "target"}
    assert told == {name: target_here(target) for name, target in TARGETS.items()}


def test_every_runtime_stands_there_once(found):
    packages = {one.package for one in RUNTIMES.values()}
    told = [one for (topic, _), one in found.items() if topic == "runtime"]
    assert len(told) == len(packages)
    assert found["runtime", "ONNX Runtime"].works
    assert found["runtime", "ONNX Runtime"].detail == f"onnxruntime {found['library', 'onnxruntime'].detail}"


def test_the_processor_and_the_versions_are_this_machines(found):
    assert str(processor()) in found["processor", "CPU"].detail
    assert found["library", "fxqat"].detail == fxqat.__version__


@pytest.mark.skipif(installed("fxqat") != fxqat.__version__, reason="fxqat is installed in another version: install it")
def test_extras_are_those_of_the_package():
    text = (REPOSITORY / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert set(optional_packages()) == set(extras) - {"dev"}


def test_a_missing_extra_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "optional_packages", lambda: {"litert": ("litert-torch", "torch")})
    monkeypatch.setattr(installation, "installed", lambda name: "" if name == "litert-torch" else "1")
    (one,) = installation._extras()
    assert one == Finding(
        topic="extra",
        name="litert",
        works=False,
        detail="litert-torch not installed: pip install 'fxqat[litert]'",
    )


def test_a_missing_runtime_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "installed", property(lambda self: False))
    told = {one.name: one.detail for one in installation._runtimes()}
    assert told["OpenVINO"] == "not installed: pip install openvino"
    assert told["LiteRT"] == "not installed: pip install ai-edge-litert"


def test_the_command_prints_a_line_each_and_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(said(capsys, "doctor", "--json"))
    lines = said(capsys, "doctor").splitlines()
    assert len(lines) == len(rows) == len(findings())
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(row["topic"])
        assert line.endswith(row["detail"])
