"""The numbers of quantization: specs, affine arithmetic, observers, fake quantizers and the modules that hold them.

A policy's decisions serve torch.ao's own flow too::

    decisions = Policy.load("mine.yaml").assign(sites(fused))
    mapping = to_torch_qconfig_mapping({path: decision.qconfig for path, decision in decisions.items()})
"""

from __future__ import annotations

import importlib
from typing import Any

# Found on first use: fxqat.errors and the command line need no torch.
_HOMES = {
    **dict.fromkeys(("QConfig", "QParams", "QuantSpec"), "spec"),
    **dict.fromkeys(
        (
            "HistogramObserver",
            "MinMaxObserver",
            "MovingAverageMinMaxObserver",
            "PerChannelMSEObserver",
            "PerChannelMinMaxObserver",
            "make_observer",
        ),
        "observers",
    ),
    **dict.fromkeys(
        ("FakeQuantize", "LSQFakeQuantize", "PerChannelFakeQuantize", "make_fake_quantize"), "fake_quantize"
    ),
    **dict.fromkeys(
        ("QATBatchNorm2d", "QATConv2d", "QATLinear", "QATReLU", "freeze_bn_stats", "update_bn_stats"), "modules"
    ),
    **dict.fromkeys(("to_torch_qconfig", "to_torch_qconfig_mapping"), "torch_qconfig"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fxqat.quant' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fxqat.quant.{_HOMES[name]}"), name)
