"""QATReLU: a ReLU that an integer runtime computes as a clamp."""

from __future__ import annotations

from torch import nn


class QATReLU(nn.ReLU):
    """A ReLU of its own at every site: an integer runtime computes it as the clamp of its output's quantizer."""
