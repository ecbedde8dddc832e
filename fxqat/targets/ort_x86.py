"""ONNX Runtime on x86 processors."""

from __future__ import annotations

from dataclasses import replace

from fxqat.quant.pair_order import Order
from fxqat.targets.target import Target
from fxqat.targets.vocabulary import DECODE, IMAGES, PLACES, UINT8, WEIGHT_REASONS, WEIGHTS

ORT_CPU = Target(
    name="ort-cpu",
    doc="ONNX Runtime on any x86: uint8 activations, int8 weights per channel; quantized after Conv, Sigmoid, Mul, Add",
    activation=UINT8,
    weight=WEIGHTS,
    # with AVX2 and no VNNI it multiplies by vpmaddubsw; the arranged file reads the first convolution in its own order
    pair_orders=(Order.ROWS, Order.PIXELS),
    places=PLACES,
    rules="silu-as-product",
    # a sigmoid ends at exactly 1.0 with scale 1/255
    fixed={**IMAGES, "sigmoid": (0.0, 1.0)},
    channels_last=True,
    arithmetic="ort-x86",
    float_roles=DECODE,
    reasons={**WEIGHT_REASONS, "activation.signed": "on x86 it fuses integer convolutions of uint8 only"},
)
ORT_CPU_VNNI = replace(
    ORT_CPU,
    name="ort-cpu-vnni",
    doc="ONNX Runtime on x86 with VNNI (Intel since Ice Lake, AMD since Zen 4): as ort-cpu, weights use all of 8 bits",
    pair_orders=(),
    needs_wide_sums=True,
)
# What ort-cpu was for processors without VNNI; files that were made for it still load.
ORT_CPU_AVX2 = replace(
    ORT_CPU,
    name="ort-cpu-avx2",
    doc="ONNX Runtime on x86 without VNNI: as ort-cpu with 7-bit weights",
    weight=replace(WEIGHTS, bits=7),
    pair_orders=(),
    reasons={**ORT_CPU.reasons, "weight.bits": "7 bits never overflow the sum of two products in 16 bits"},
    replaced_by="ort-cpu",
)
