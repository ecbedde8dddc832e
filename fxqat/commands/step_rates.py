"""How long a step that counts nothing will last, by what it lasted on this machine before.

The seconds a node of the graph are kept in the user's cache folder. Where that cannot be read or written, what was
measured on an Intel Xeon 2.8 GHz stands in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fxqat.errors import Problem
from fxqat.files import write_text

# Seconds a node of yolov8n's graph on the machine named above.
MEASURED: Mapping[str, float] = {"export .onnx": 0.035, "export .tflite": 0.09, "convert": 0.004}


def expected(step: str, nodes: int) -> float:
    """Seconds that ``step``, a key of ``MEASURED``, will last for a graph of ``nodes`` nodes."""
    return nodes * _kept().get(step, MEASURED[step])


def remember(step: str, nodes: int, seconds: float) -> None:
    """Keep what ``step`` lasted; nothing happens where the cache folder cannot be written."""
    rates = {**_kept(), step: seconds / max(nodes, 1)}
    with suppress(OSError, Problem):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_text(_file(), json.dumps(rates))


def _kept() -> dict[str, float]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {key: float(found[key]) for key in MEASURED if key in found and 0 < found[key] < math.inf}
    except (OSError, ValueError, TypeError):
        return {}


def _file() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "fxqat" / "step_rates.json"
