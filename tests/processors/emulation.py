"""Programs on a processor that this machine is not, by qemu's emulation of one process."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HERE = "this machine"
QEMU = "qemu-x86_64"
PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}
_PROGRAM = Path(__file__).with_name("run_blocks.py")
_PATIENCE = 300  # seconds; it takes 3 with ONNX Runtime and 12 with OpenVINO


def missing(runtime: str, processor: str) -> str | None:
    """What is not here to run ``runtime`` on ``processor``, and how to get it."""
    if importlib.util.find_spec(PACKAGES[runtime]) is None:
        return f"no {PACKAGES[runtime]} here, so nobody compared its codes: pip install 'fxqat[peers]'"
    if processor == HERE:
        return None
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return (
            f"this is {platform.machine()}: Python itself must be a program for x86 to run on an emulated {processor}"
        )
    if shutil.which(QEMU) is None:
        return f"no {QEMU} here, so nobody looked at an emulated {processor}: apt-get install qemu-user"
    return None


def answers(runtime: str, processor: str, folder: Path) -> Mapping[str, Mapping[str, np.ndarray]]:
    """Outputs of every ONNX file in ``folder``, by the file's stem and by name; ``inputs.npz`` holds its inputs."""
    out = folder / f"{runtime} on {processor}"
    out.mkdir()
    emulated = [] if processor == HERE else [QEMU, "-cpu", processor]
    command = [*emulated, sys.executable, str(_PROGRAM), runtime, str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return {path.stem: dict(np.load(path)) for path in out.glob("*.npz")}
