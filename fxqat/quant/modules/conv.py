"""QATConv2d: a convolution with what follows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fxqat.quant.modules.layer import QuantizableLayer, float_layer
from fxqat.quant.pairs import pair_indices

_GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


class QATConv2d(QuantizableLayer):
    """Conv2d, then BatchNorm2d, then an activation, each of the last two optional.

    Without a weight quantizer it computes exactly the three layers one after the other. With one, the folded weight is
    what is quantized, as it will be in the integer model; see :meth:`QuantizableLayer.forward`. Parameters
    are those of the layers it was made of, not copies.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, activation: nn.Module | None) -> None:
        super().__init__(conv, bn, activation)
        for name in _GEOMETRY:
            setattr(self, name, getattr(conv, name))

    def _pairs(self) -> Tensor:
        return pair_indices(
            self.weight.shape,
            self.pair_orders,
            groups=self.groups,
            stride=self.stride[1],
            padding=self.zeros_before[1],
        )

    @property
    def zeros_before(self) -> tuple[int, int]:
        """Rows of zeros above the image and columns left of it."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "valid":
            return 0, 0
        height, width = (d * (k - 1) // 2 for k, d in zip(self.kernel_size, self.dilation, strict=True))
        return height, width

    @classmethod
    def fused(cls, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, activation: nn.Module | None = None) -> QATConv2d:
        """The three layers as one module.

        Raises:
            ValueError: the channels differ, padding is not with zeros, or the batch norm keeps no running statistics.
        """
        if conv.padding_mode != "zeros":
            raise ValueError(f"padding_mode: {conv.padding_mode!r} is not legal, expected 'zeros'")
        _check_norm(conv.out_channels, bn)
        return cls(conv, bn, activation)

    def _sharing(self, activation: nn.Module | None) -> QATConv2d:
        return QATConv2d(self, self.bn, activation)  # type: ignore[arg-type]

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def to_float(self) -> nn.Module:
        """Conv2d with the batch norm folded in, followed by the activation if there is one."""
        weight, bias = self.folded()
        geometry: dict[str, Any] = {name: getattr(self, name) for name in _GEOMETRY}
        conv = nn.Conv2d(**geometry, bias=bias is not None)
        return float_layer(conv, weight, bias, self)

    def extra_repr(self) -> str:
        """Channels, kernel, stride, then what follows the convolution."""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.in_channels}->{self.out_channels} k{self.kernel_size[0]} s{self.stride[0]}{groups}{self._tail()}"


def _check_norm(channels: int, bn: nn.BatchNorm2d | None) -> None:
    if bn is None:
        return
    if bn.num_features != channels:
        raise ValueError(f"bn: {bn.num_features} channels are not legal, expected the convolution's {channels}")
    if bn.running_var is None:
        raise ValueError("bn: no running statistics, expected track_running_stats=True")
