"""The tour of quantization's effects runs from top to bottom, and what it tells is so."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "bench" / "quantization_effects.ipynb"
# In a process of its own: what Jupyter's libraries warn of is not for this suite to judge.
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_runs_and_says_what_is_so(tmp_path: Path) -> None:
    missing = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here, so the notebook was not run: pip install 'fxqat[dev]'")
    written = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in written["cells"]), "commit it with its outputs cleared"

    out = tmp_path / "executed.ipynb"
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    environment.pop("MPLBACKEND", None)  # the notebook shows its plots in the page
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]

    outputs = [one for cell in json.loads(out.read_text())["cells"] for one in cell.get("outputs", ())]
    assert sum("image/png" in one.get("data", {}) for one in outputs) == 7
    said = "".join("".join(one.get("text", ())) for one in outputs)
    symmetric, _, asymmetric = (float(value) for value in re.findall(r"([\d.]+) dB, +\d+% of the codes", said))
    assert asymmetric > symmetric + 3  # nearly one bit more of codes in reach, 6 dB each
    plain, through = re.findall(r"by the error (?:before|after) SiLU .*?, +([\d.]+) dB after it", said)
    assert float(through) > float(plain)
