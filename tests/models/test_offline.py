"""Ultralytics must stay silent, off the network and out of the user's files; each proof runs in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Every way Python opens a connection or resolves a name ends here.
FORBID = """
import socket
def refuse(*args, **kwargs): raise AssertionError(f"network used: {args[1:] or args}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
"""


def run(code: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "XDG_"))}
    environment = {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, text=True, timeout=120
    )


def checked(code: str, home: Path, **variables: str) -> str:
    done = run(code, home, PYTHONPATH=str(Path(__file__).parents[2]), **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


APPLY = "import os\nfrom fxqat.models.environment import environment\nos.environ.update(environment())\n"


def test_the_environment_can_be_had_before_ultralytics_is_imported(tmp_path):
    code = "import sys, fxqat.models.environment; print('ultralytics' in sys.modules)"
    assert checked(code, tmp_path).strip() == "False"


def test_import_and_validation_use_no_network_and_print_nothing(tmp_path, tiny_data):
    code = f"""
{FORBID}
{APPLY}
import torch
from fxqat.models import offline
from fxqat.evaluation.accuracy import Predictor, evaluate
names = {{0: "red", 1: "green", 2: "blue"}}
model = Predictor(name="none", predict=lambda images: torch.zeros(len(images), 7, 4), names=names)
evaluate(model, {str(tiny_data)!r}, imgsz=64)
"""
    assert checked(code, tmp_path) == ""


def test_one_training_epoch_uses_no_network_and_prints_nothing(tmp_path, tiny_data):
    """Ultralytics' own trainer, with its data set check (fonts), callbacks and final validation."""
    code = f"""
{FORBID}
{APPLY}
from fxqat.models import offline
offline.provide_fonts()
from ultralytics.models.yolo.detect import DetectionTrainer
DetectionTrainer(overrides=dict(model="yolov8n.yaml", data={str(tiny_data)!r}, epochs=1, imgsz=32, batch=12, workers=0,
    device="cpu", plots=False, val=False, project={str(tmp_path / "runs")!r}, warmup_epochs=0)).train()
"""
    assert checked(code, tmp_path) == ""
    for cache in tiny_data.parent.rglob("*.cache"):
        cache.unlink()  # Ultralytics' trainer leaves it beside the labels


def test_the_first_import_is_silent_even_without_the_environment(tmp_path):
    assert checked("from fxqat.models import offline", tmp_path) == ""


def test_settings_change_in_memory_only(tmp_path):
    code = """
import json
from fxqat.models import offline
from ultralytics.utils import SETTINGS, SETTINGS_FILE
from ultralytics.utils.events import events
print(json.dumps([SETTINGS["sync"], events.enabled, json.loads(SETTINGS_FILE.read_text())["sync"]]))
"""
    assert json.loads(checked(code, tmp_path)) == [False, False, True]


def test_analytics_stop_when_ultralytics_was_imported_first(tmp_path):
    code = """
from ultralytics.utils.events import events
events.enabled = True
from fxqat.models import offline
print(events.enabled)
"""
    assert checked(code, tmp_path, YOLO_VERBOSE="0").strip() == "False"


def test_torch_keeps_its_threads(tmp_path):
    """Ultralytics sets OMP_NUM_THREADS=1 on import, which would leave torch on one core if it loaded later."""
    done = run(
        "import sys; sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else ''); "
        "import os; os.environ.pop('OMP_NUM_THREADS'); from fxqat.models import offline; "
        "import torch; print(torch.get_num_threads(), len(os.sched_getaffinity(0)))",
        tmp_path,
        PYTHONPATH=str(Path(__file__).parents[2]),
    )
    threads, cores = map(int, done.stdout.split())
    if cores == 1:
        pytest.skip("one core: the two cases look the same")
    assert threads > 1


def test_quiet_silences_progress_bars():
    from fxqat.models import offline

    offline.quiet()
    from ultralytics.utils import TQDM

    assert TQDM(range(3)).disable


def test_a_session_of_onnx_runtime_writes_nothing_of_its_own(tmp_path):
    code = f"""
{APPLY}
import onnx, onnxruntime
text = '<ir_version: 8, opset_import: ["" : 17]> relu (float[2] x) => (float[2] y) {{ y = Relu(x) }}'
onnxruntime.InferenceSession(onnx.parser.parse_model(text).SerializeToString()).run(None, {{"x": [1.0, -1.0]}})
"""
    assert checked(code, tmp_path, TMPDIR=str(tmp_path)) == ""
    assert list(tmp_path.rglob("*")) == []
