"""Activations that may stand in the place of SiLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An activation by its class in ``torch.nn``.

    Attributes:
        layer: the name of the class.
        arguments: of its constructor.
        doc: what it costs a runtime that computes in integers.
    """

    layer: str
    arguments: tuple[float, ...] = ()
    doc: str

    @property
    def written(self) -> str:
        """As an Ultralytics architecture writes it: ``nn.LeakyReLU(0.1)``."""
        return f"nn.{self.layer}({', '.join(map(repr, self.arguments))})"

    def make(self) -> nn.Module:
        """A new module."""
        from torch import nn

        made: nn.Module = getattr(nn, self.layer)(*self.arguments)
        return made


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(layer="ReLU", doc="free: the clamp of the integer convolution"),
    "leaky_relu": Activation(layer="LeakyReLU", arguments=(0.1,), doc="one integer kernel, a table"),
    "hardswish": Activation(layer="Hardswish", doc="nearest to SiLU, computed in float"),
}
