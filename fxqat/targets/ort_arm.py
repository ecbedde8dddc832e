"""ONNX Runtime on Arm processors."""

from __future__ import annotations

from dataclasses import replace

from fxqat.targets.ort_x86 import ORT_CPU
from fxqat.targets.vocabulary import UINT8, WEIGHT_REASONS

ORT_ARM = replace(
    ORT_CPU,
    name="ort-arm",
    doc="ONNX Runtime on Arm: int8 activations and weights; quantized as for ort-cpu",
    runtime="ONNX Runtime on Arm",
    activation=replace(UINT8, signed=True),
    pair_orders=(),
    channels_last=False,  # its kernels differ, and no such machine was at hand to measure on
    reasons={**WEIGHT_REASONS, "activation.signed": "on Arm its integer kernels multiply int8 by int8"},
)
