"""OpenVINO's CPU plugin."""

from __future__ import annotations

from fxqat.quant.pair_order import Order
from fxqat.targets.target import Target
from fxqat.targets.vocabulary import DECODE, IMAGES, PLACES, UINT8, WEIGHT_REASONS, WEIGHTS

OPENVINO = Target(
    name="openvino",
    doc="OpenVINO's CPU plugin: uint8 at the inputs of convolutions and residual branches, SiLU inside the convolution",
    runtime="openvino",
    activation=UINT8,
    weight=WEIGHTS,
    pair_orders=(Order.ROWS, Order.TAPS),
    places=PLACES,
    # What becomes of a Conv, a SiLU and a residual Add in one kernel has no codes in between: only what the next
    # convolution reads is rounded, and what a sum reads beside it.
    readers=frozenset({"QATConv2d", "QATLinear"}),
    restates=False,
    integer_bias=False,
    fixed=IMAGES,
    float_roles=DECODE,
    reasons={**WEIGHT_REASONS, "activation.signed": "its convolutions multiply uint8 by int8"},
)
