"""QATLinear: a linear layer with what follows it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fxqat.quant.modules.layer import QuantizableLayer, float_layer


class QATLinear(QuantizableLayer):
    """Linear, then an activation, the latter optional; weight quantized as QATConv2d's."""

    def __init__(self, linear: nn.Linear, activation: nn.Module | None) -> None:
        super().__init__(linear, None, activation)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @classmethod
    def fused(cls, linear: nn.Linear, activation: nn.Module | None = None) -> QATLinear:
        """The two layers as one module."""
        return cls(linear, activation)

    def _sharing(self, activation: nn.Module | None) -> QATLinear:
        return QATLinear(self, activation)  # type: ignore[arg-type]

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def to_float(self) -> nn.Module:
        """Linear, followed by the activation if there is one."""
        weight, bias = self.folded()
        return float_layer(nn.Linear(self.in_features, self.out_features, bias is not None), weight, bias, self)

    def extra_repr(self) -> str:
        """Features, then what follows."""
        return f"{self.in_features}->{self.out_features}{self._tail()}"
