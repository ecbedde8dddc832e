"""LiteRT, which was TensorFlow Lite."""

from __future__ import annotations

from dataclasses import replace

from fxqat.targets.ort_arm import ORT_ARM
from fxqat.targets.vocabulary import IMAGES, WEIGHT_REASONS

LITERT = replace(
    ORT_ARM,
    name="litert",
    doc="LiteRT (TensorFlow Lite) with XNNPACK: int8 activations and weights; sigmoids in steps of 1/256",
    runtime="litert",
    suffix=".tflite",
    arithmetic="xnnpack",
    restates_for_floats=False,  # its converter would give them the scale of a quantize further on
    # LOGISTIC has no other scale and zero point
    fixed={**IMAGES, "sigmoid": (0.0, 255 / 256)},
    reasons={**WEIGHT_REASONS, "activation.signed": "its kernels for weights per channel take int8 only"},
)
