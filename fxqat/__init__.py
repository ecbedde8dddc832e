"""Torch FX graph transformations for quantization-aware training of Ultralytics YOLOv8.

Example:
    model = fxqat.load("yolov8n.pt")
    qat, report = fxqat.prepare(model, policy="critical")
    qat = fxqat.calibrate(qat, data="coco128.yaml")
    qat = fxqat.train(qat, data="coco128.yaml", epochs=3)
    int8, report = fxqat.convert(qat)
    fxqat.export(int8, "yolov8n_int8.onnx")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxqat.lazy import lazy_names
from fxqat.version import VERSION

if TYPE_CHECKING:
    from fxqat.api import calibrate, convert, export, get_critical_layers, prepare, retarget, train, verify
    from fxqat.checkpoint.model_io import load, save
    from fxqat.graph.pipeline import PassReport, Pipeline
    from fxqat.graph.rewrite import rule
    from fxqat.policy import Policy
    from fxqat.quant.spec import QuantSpec

__version__ = VERSION
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

# Found on first use: `fxqat --help` and `import fxqat.errors` need no torch.
_HOMES = {
    "fxqat.api": (
        "calibrate",
        "convert",
        "export",
        "get_critical_layers",
        "prepare",
        "retarget",
        "train",
        "verify",
    ),
    "fxqat.checkpoint.model_io": ("load", "save"),  # a .fxqat file loads without Ultralytics
    "fxqat.graph.pipeline": ("PassReport", "Pipeline"),
    "fxqat.graph.rewrite": ("rule",),
    "fxqat.policy": ("Policy",),
    "fxqat.quant.spec": ("QuantSpec",),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
