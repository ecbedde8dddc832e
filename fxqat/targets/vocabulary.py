"""Operations, integer types and reasons that several targets share."""

from __future__ import annotations

from fxqat.quant.spec import QuantSpec
from fxqat.targets.operations import Place

# Operations that only move values keep the quantizer of their input; those that join tensors need one for all inputs.
PLACES = {
    "input": Place.OWN,
    "QATConv2d": Place.OWN,
    "QATLinear": Place.OWN,
    "sigmoid": Place.OWN,
    "mul": Place.OWN,
    "add": Place.OWN,
    "ReLU": Place.OWN,
    "QATReLU": Place.OWN,
    "SiLU": Place.OWN,
    "LeakyReLU": Place.OWN,
    "Hardswish": Place.OWN,
    "cat": Place.SHARED,
    "MaxPool2d": Place.SAME,
    "Upsample": Place.SAME,
    "chunk": Place.SAME,
    "split": Place.SAME,
    "getitem": Place.SAME,
    "flatten": Place.SAME,
    "Identity": Place.SAME,
    "ReflectionPad2d": Place.SAME,
    "ReplicationPad2d": Place.SAME,
    "CircularPad2d": Place.SAME,
    "QATBatchNorm2d": Place.NONE,
    "Dropout": Place.SAME,
    "PixelShuffle": Place.SAME,
    "AdaptiveAvgPool2d": Place.NONE,
    "AvgPool2d": Place.NONE,
    "ConvTranspose2d": Place.NONE,
    "ZeroPad2d": Place.NONE,
    "cos": Place.NONE,
    "matmul": Place.NONE,
    "sin": Place.NONE,
    "stack": Place.NONE,
    "sum": Place.NONE,
    "unflatten": Place.NONE,
    "transpose": Place.NONE,
    "permute": Place.NONE,
    "softmax": Place.NONE,
    "squeeze": Place.NONE,
    "unsqueeze": Place.NONE,
    "sub": Place.NONE,
    "truediv": Place.NONE,
}

# Boxes and scores are joined at the end of the decode.
DECODE = {"decode": "boxes in pixels and scores in 0..1 would share one scale, which rounds every score to 0"}
# Images are bytes over 255, so they are exact as uint8.
IMAGES = {"input": (0.0, 1.0)}
UINT8 = QuantSpec(bits=8, signed=False, symmetric=False)
WEIGHTS = QuantSpec(bits=8, signed=True, symmetric=True, narrow=True, axis=0)
WEIGHT_REASONS = {
    "weight.symmetric": "a weight's zero point costs a sum over the input in every kernel",
    "weight.axis": "kernels rescale by output channel",
}
