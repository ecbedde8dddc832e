"""The numbers of quantization: specs, affine arithmetic, observers, fake quantizers and the modules that hold them.

A policy's decisions serve torch.ao's own flow too::

    decisions = Policy.load("mine.yaml").assign(sites(fused))
    mapping = to_torch_qconfig_mapping({path: decision.qconfig for path, decision in decisions.items()})
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fxqat.lazy import lazy_names

if TYPE_CHECKING:
    from fxqat.quant.fake_quantize import FakeQuantize, LSQFakeQuantize, PerChannelFakeQuantize, make_fake_quantize
    from fxqat.quant.modules import QATBatchNorm2d, QATConv2d, QATLinear, QATReLU, freeze_bn_stats, update_bn_stats
    from fxqat.quant.observers import (
        HistogramObserver,
        MinMaxObserver,
        MovingAverageMinMaxObserver,
        PerChannelMinMaxObserver,
        PerChannelMSEObserver,
        make_observer,
    )
    from fxqat.quant.spec import QConfig, QParams, QuantSpec
    from fxqat.quant.torch_qconfig import to_torch_qconfig, to_torch_qconfig_mapping

__all__ = [
    "FakeQuantize",
    "HistogramObserver",
    "LSQFakeQuantize",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "PerChannelFakeQuantize",
    "PerChannelMSEObserver",
    "PerChannelMinMaxObserver",
    "QATBatchNorm2d",
    "QATConv2d",
    "QATLinear",
    "QATReLU",
    "QConfig",
    "QParams",
    "QuantSpec",
    "freeze_bn_stats",
    "make_fake_quantize",
    "make_observer",
    "to_torch_qconfig",
    "to_torch_qconfig_mapping",
    "update_bn_stats",
]

# Found on first use: fxqat.errors and the command line need no torch.
_HOMES = {
    "fxqat.quant.fake_quantize": ("FakeQuantize", "LSQFakeQuantize", "PerChannelFakeQuantize", "make_fake_quantize"),
    "fxqat.quant.modules": (
        "QATBatchNorm2d",
        "QATConv2d",
        "QATLinear",
        "QATReLU",
        "freeze_bn_stats",
        "update_bn_stats",
    ),
    "fxqat.quant.observers": (
        "HistogramObserver",
        "MinMaxObserver",
        "MovingAverageMinMaxObserver",
        "PerChannelMSEObserver",
        "PerChannelMinMaxObserver",
        "make_observer",
    ),
    "fxqat.quant.spec": ("QConfig", "QParams", "QuantSpec"),
    "fxqat.quant.torch_qconfig": ("to_torch_qconfig", "to_torch_qconfig_mapping"),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
