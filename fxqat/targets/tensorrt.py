"""TensorRT."""

from __future__ import annotations

from dataclasses import replace

from fxqat.quant.spec import QuantSpec
from fxqat.targets.openvino import OPENVINO
from fxqat.targets.vocabulary import WEIGHT_REASONS

TENSORRT = replace(
    OPENVINO,
    name="tensorrt",
    doc="TensorRT: symmetric int8 at the inputs of convolutions and residual branches, zero points 0, biases in float",
    runtime="TensorRT",
    restates=True,  # as it was; no such runtime was at hand to measure in
    activation=QuantSpec(bits=8, signed=True, symmetric=True),
    pair_orders=(),
    reasons={
        **WEIGHT_REASONS,
        "activation.signed": "it has int8 only",
        "activation.symmetric": "its zero points are 0",
    },
)
