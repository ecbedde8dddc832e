"""The order in which a kernel reads a filter, by which it pairs weights; see fxqat.quant.pairs."""

from __future__ import annotations

from enum import Enum


class Order(Enum):
    """The sequences that a kernel reads a filter (C / groups, Kh, Kw) in; it adds the 1st and 2nd, the 3rd and 4th.

    The last of an odd number has no partner. For an even number of channels both orders give the same pairs.

    Attributes:
        ROWS: one sequence ``(kh, kw, c)``, c fastest: ONNX Runtime, and OpenVINO's groups on AVX2.
        TAPS: a sequence ``c`` for each tap: OpenVINO.
        PIXELS: ROWS of the same convolution over groups of pixels (``fxqat.quant.pixel_groups``), which files for ONNX
            Runtime hold where C is no multiple of four.
    """

    ROWS = "rows"
    TAPS = "taps"
    PIXELS = "pixels"
