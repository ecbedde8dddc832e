"""Sums over tensors from which SQNR, cosine, clipping and range use follow; they add up over images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fxqat.quant.affine import dequantize, quantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.spec import QParams


@dataclass(kw_only=True)
class Tally:
    """What was seen so far of a tensor x and another q that stands for it, ``d = q - x``.

    Attributes:
        signal: sum of x^2.
        noise: sum of d^2.
        cross: sum of x d.
        count: how many values.
        outside: values beyond the codes' range by more than half a step.
        low: least x.
        high: largest x.
        used: share of the codes' range that x reaches into, 0..1.
    """

    signal: float = 0.0
    noise: float = 0.0
    cross: float = 0.0
    count: int = 0
    outside: int = 0
    low: float = math.inf
    high: float = -math.inf
    used: float = 0.0

    def add(self, x: Tensor, d: Tensor) -> None:
        """Take in x and its error, same shape."""
        x, d = x.reshape(-1), d.reshape(-1)
        self.signal += float(x @ x)
        self.noise += float(d @ d)
        self.cross += float(x @ d)
        self.count += x.numel()

    def add_range(self, x: Tensor, qparams: QParams) -> None:
        """Take in how x lies in the range of codes of one scale."""
        (bottom, top), scale = qparams.span, float(qparams.scale)
        low, high = (float(end) for end in x.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        if low < bottom - scale / 2 or high > top + scale / 2:
            self.outside += int(((x < bottom - scale / 2) | (x > top + scale / 2)).sum())
        reached = min(self.high, top) - max(self.low, bottom)
        self.used = max(0.0, reached / (top - bottom))

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise, dB; infinite without noise, and minus infinity without signal."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Of the angle between x and q, -1..1; 1 where both are zero."""
        other = self.signal + 2 * self.cross + self.noise
        if self.signal <= 0 or other <= 0:
            return 1.0 if not self.noise else 0.0
        return max(-1.0, min(1.0, (self.signal + self.cross) / math.sqrt(self.signal * other)))

    @property
    def clipped(self) -> float:
        """Share of the values that were clipped, 0..1."""
        return self.outside / self.count if self.count else 0.0


@torch.no_grad()
def weight_tally(layer: QATConv2d | QATLinear, input_scale: Tensor | None) -> Tally:
    """A layer's folded weight against its codes; ``used`` is the mean over channels of the codes between the least and
    the largest.

    Args:
        layer: with an integer weight.
        input_scale: of its input, where the bias is rounded with it, which may widen the weight's range.
    """
    weight, _ = layer.folded()
    if input_scale is not None:
        layer.integer(input_scale)
    assert layer.weight_fake_quant is not None
    qparams = layer.weight_fake_quant.qparams()
    whole = quantize(weight, qparams)
    tally = Tally()
    tally.add(weight, dequantize(whole, qparams) - weight)
    codes = whole.movedim(qparams.axis, 0).flatten(1) if qparams.axis is not None else whole.reshape(1, -1)
    low, high = codes.int().aminmax(dim=1)
    tally.used = float((high - low + 1).float().mean() / (qparams.quant_max - qparams.quant_min + 1))
    return tally
