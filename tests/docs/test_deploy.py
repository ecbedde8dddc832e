"""The C++ program of the page on deployment compiles and runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from detectors import write_onnx
from docs.blocks import REPOSITORY, blocks


def test_the_openvino_program_compiles_and_runs(tmp_path: Path) -> None:
    found = importlib.util.find_spec("openvino")
    if found is None or found.origin is None or shutil.which("g++") is None:
        pytest.skip("needs openvino (pip install openvino) and g++")
    package = Path(found.origin).parent
    (program,) = (one for one in blocks(REPOSITORY / "docs" / "how-to" / "deploy.md") if one.language == "cpp")
    (tmp_path / "detect.cpp").write_text(program.text)
    (library,) = (package / "libs").glob("libopenvino.so.*")
    words = ["g++", "-std=c++17", f"-I{package / 'include'}", "detect.cpp", str(library), "-o", "detect"]
    subprocess.run([*words, f"-Wl,-rpath,{library.parent}"], cwd=tmp_path, check=True)
    file = write_onnx(tmp_path / "model.onnx", batch=1, imgsz=64)
    done = subprocess.run(["./detect", str(file)], cwd=tmp_path, check=True, capture_output=True, text=True)
    # scores of this file are about 0.5, so every class is found in every cell
    assert done.stdout.startswith("class 0 at ")
