"""Files in other processes: without Ultralytics, and with another version of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fxqat
from fxqat.models.load import build

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("yolov8n", "calibrated", "converted")
OTHER = "8.4.120"  # builds SPPF otherwise than 8.4.190 does

READ = """
import sys, torch
sys.modules["ultralytics"] = None  # an import would fail
import fxqat
for name in sys.argv[2:]:
    model = fxqat.load(f"{sys.argv[1]}/{name}.fxqat")
    with torch.no_grad():
        same = torch.equal(model(torch.load(f"{sys.argv[1]}/images.pt"))[0], torch.load(f"{sys.argv[1]}/{name}.pt"))
    print(name, model.stage, same)
"""
WRITE = """
import sys, torch, ultralytics
import fxqat
folder, images = sys.argv[1], torch.load(f"{sys.argv[1]}/images.pt")
model = fxqat.load(f"{folder}/weights.pt")
qat = fxqat.calibrate(fxqat.prepare(model, "critical")[0], [images])
for name, one in (("float", model), ("qat", qat), ("int8", fxqat.convert(qat)[0])):
    fxqat.save(one, f"{folder}/{name}.fxqat")
    with torch.no_grad():
        torch.save(one(images)[0], f"{folder}/{name}.pt")
with torch.no_grad():
    torch.save(fxqat.load(f"{folder}/here.fxqat")(images)[0], f"{folder}/there.pt")
print(ultralytics.__version__)
"""


def run(code, *arguments, first=""):
    """What a process prints that knows nothing of this one; modules in ``first`` come before those installed."""
    known = {name: value for name, value in os.environ.items() if name.startswith(("YOLO_", "OMP_", "HOME", "PATH"))}
    known["PYTHONPATH"] = os.pathsep.join(filter(None, (first, str(REPOSITORY))))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=known, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_stage_is_the_same_in_a_process_without_ultralytics(request, tmp_path, images):
    torch.save(images, tmp_path / "images.pt")
    for name in STAGES:
        model = request.getfixturevalue(name)
        fxqat.save(model, tmp_path / f"{name}.fxqat")
        with torch.no_grad():
            torch.save(model(images)[0].clone(), tmp_path / f"{name}.pt")
    assert run(READ, tmp_path, *STAGES) == "yolov8n float True\ncalibrated qat True\nconverted int8 True\n"


@pytest.fixture(scope="module")
def other_version(tmp_path_factory):
    """A folder with another version of Ultralytics, from the package index."""
    folder = tmp_path_factory.mktemp("other")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, f"ultralytics=={OTHER}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"no ultralytics {OTHER} from the package index, so one version alone was tried: {done.stderr[-200:]}"
        )
    return folder


@pytest.mark.slow
def test_every_stage_is_the_same_with_another_version_of_ultralytics(other_version, tmp_path, images):
    model, _ = build("yolov8n.yaml", classes=3)
    torch.save({"model": model, "ema": None}, tmp_path / "weights.pt")
    torch.save(images, tmp_path / "images.pt")
    here = fxqat.load(tmp_path / "weights.pt")
    fxqat.save(here, tmp_path / "here.fxqat")
    assert run(WRITE, tmp_path, first=str(other_version)) == f"{OTHER}\n"
    with torch.no_grad():
        wanted = model(images)[0]
        assert torch.equal(here(images)[0], wanted)
        assert torch.equal(torch.load(tmp_path / "there.pt"), wanted), "written here, read there"
        assert torch.equal(torch.load(tmp_path / "float.pt"), wanted), "the checkpoint, traced there"
        for name in ("float", "qat", "int8"):
            again = fxqat.load(tmp_path / f"{name}.fxqat")
            assert again.stage == name
            assert torch.equal(again(images)[0], torch.load(tmp_path / f"{name}.pt")), "written there, read here"
