"""Torch FX graph transformations for quantization-aware training of Ultralytics YOLOv8.

Example:
    model = fxqat.load("yolov8n.pt")
    qat, report = fxqat.prepare(model, policy="yolov8_critical")
    qat = fxqat.calibrate(qat, data="coco128.yaml")
    qat = fxqat.train(qat, data="coco128.yaml", epochs=3)
    int8, report = fxqat.convert(qat)
    fxqat.export(int8, "yolov8n_int8.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxqat.api import calibrate, convert, export, get_critical_layers, load, prepare, retarget, save, train, verify
    from fxqat.graph.pipeline import PassReport, Pipeline
    from fxqat.graph.rewrite import rule
    from fxqat.policy import Policy
    from fxqat.quant.spec import QuantSpec

__version__ = "0.1.0"
__all__ = [
    "PassReport",
    "Pipeline",
    "Policy",
    "QuantSpec",
    "calibrate",
    "convert",
    "export",
    "get_critical_layers",
    "load",
    "prepare",
    "retarget",
    "rule",
    "save",
    "train",
    "verify",
]

# Found on first use: `fxqat --help` and `import fxqat.errors` need no torch. Every other name is a verb of fxqat.api.
_HOMES = {
    "PassReport": "fxqat.graph.pipeline",
    "Pipeline": "fxqat.graph.pipeline",
    "Policy": "fxqat.policy",
    "load": "fxqat.checkpoint.model_io",
    "save": "fxqat.checkpoint.model_io",
    "QuantSpec": "fxqat.quant.spec",
    "rule": "fxqat.graph.rewrite",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fxqat' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "fxqat.api")), name)
