"""A layer that folds its batch norm and quantizes its weight: the base of convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.quant.affine import quantize
from fxqat.quant.bias import fake_quantize_bias, quantize_bias, smallest_weight_scale
from fxqat.quant.fake_quantize import FakeQuantize, make_fake_quantize
from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import least_scale, pair_indices
from fxqat.quant.spec import QuantSpec

# Below this a folding factor is not divided by: with gamma == 0 the scaled convolution would undo 0 by 0.
_SMALLEST_FACTOR = 2.0**-20


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerWeights:
    """What an integer layer stores.

    Attributes:
        weight: codes in the weight spec's dtype, shape of the float weight.
        weight_scale: float32 [C] (or [1] for one scale a tensor).
        weight_zero_point: int32, shape of weight_scale; zeros for symmetric specs.
        bias: int32 codes [C], float32 [C] where it stays in float, or None without bias and batch norm.
        bias_scale: float32 [C], ``input_scale * weight_scale``; None where the bias stays in float.
    """

    weight: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor
    bias: Tensor | None
    bias_scale: Tensor | None


class QuantizableLayer(nn.Module):
    """What QATConv2d and QATLinear share: weight, bias, batch norm, activation and the weight's quantizer."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    bn: Any
    activation: nn.Module | None
    weight_fake_quant: FakeQuantize | None
    pair_orders: tuple[Order, ...]

    def __init__(self, layer: Any, bn: Any, activation: nn.Module | None) -> None:
        super().__init__()
        self.weight = layer.weight
        self.register_parameter("bias", layer.bias)
        self.bn, self.activation, self.weight_fake_quant = bn, activation, None
        self.bn_frozen = False
        self.training = layer.training
        self.pair_orders = ()
        self._found_pairs: Tensor | None = None

    @property
    def pairs(self) -> Tensor:
        """Of weights whose products a kernel adds in 16 bits, int64 (P, 2); found when they are first asked for."""
        device = self.weight.device
        if self._found_pairs is None or self._found_pairs.device != device:
            self._found_pairs = self._pairs().to(device)
        return self._found_pairs

    @pairs.setter
    def pairs(self, pairs: Tensor) -> None:
        self._found_pairs = pairs

    def with_activation(self, activation: nn.Module | None) -> Any:
        """The same layer, parameters and quantizer shared, with another activation after it."""
        made = self._sharing(activation)
        made.weight_fake_quant, made.bn_frozen = self.weight_fake_quant, self.bn_frozen
        made.pair_orders = self.pair_orders
        return made

    def _sharing(self, activation: nn.Module | None) -> QuantizableLayer:
        raise NotImplementedError

    def quantize_weight(
        self, spec: QuantSpec, site: str = "", *, pair_orders: Sequence[Order] = (), calibrate: bool = True
    ) -> None:
        """Quantize the folded weight as ``spec`` says from now on; its range follows the weight.

        Args:
            spec: how.
            site: named in errors.
            pair_orders: how kernels read the weight that add its products in 16 bits: each channel's scale is then the
                least that keeps all pairs within ``fxqat.quant.pairs.PAIR_MAX``.
            calibrate: choose the range now, instead of in a later :meth:`calibrate_weight`, which is half the time of
                preparing YOLOv8x.
        """
        self.pair_orders, self._found_pairs = tuple(pair_orders), None
        fake_quant = make_fake_quantize(spec, site, channels=self.weight.shape[spec.axis or 0])
        fake_quant.disable_observer()
        self.weight_fake_quant = fake_quant.to(self.weight.device)
        if calibrate:
            self.calibrate_weight()

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """The layer's output in float.

        Args:
            x: input; already fake-quantized where the input is quantized.
            input_scale: float32 [1], the scale of ``x``; with it the bias is quantized as an integer runtime does.
        """
        y = self._layer(x, input_scale)
        return y if self.activation is None else self.activation(y)

    def _layer(self, x: Tensor, input_scale: Tensor | None) -> Tensor:
        if self.weight_fake_quant is None:
            y = self._linear(x, self.weight, self.bias)
            return y if self.bn is None else self.bn(y)
        if self.bn is not None and self.bn.training:
            return self._with_live_statistics(x)
        weight, bias = self._folded()
        weight = self._quantized(weight, bias, input_scale)
        if bias is not None and input_scale is not None and self.weight_fake_quant.quantizing:
            bias = fake_quantize_bias(bias, input_scale * self.weight_fake_quant.scale.detach())
        return self._linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    def _with_live_statistics(self, x: Tensor) -> Tensor:
        """Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2: the weight is scaled by the running statistics before
        it is quantized, the scale is undone after the convolution, and batch norm uses the batch's statistics.
        """
        factor = self._factor()
        factor = torch.where(factor.abs() < _SMALLEST_FACTOR, _SMALLEST_FACTOR, factor)
        weight = self._quantized(self._scaled(factor), None, None)
        y = self._linear(x, weight.to(x.dtype), None) / _beside_channels(factor, x)
        return self.bn(y if self.bias is None else y + _beside_channels(self.bias, x))

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _factor(self) -> Tensor:
        gamma = self.bn.weight if self.bn.affine else torch.ones_like(self.bn.running_var)
        return gamma * torch.rsqrt(self.bn.running_var + self.bn.eps)

    def _scaled(self, factor: Tensor) -> Tensor:
        return self.weight * factor.view(-1, *[1] * (self.weight.dim() - 1))

    def _folded(self) -> tuple[Tensor, Tensor | None]:
        if self.bn is None:
            return self.weight, self.bias
        factor = self._factor()
        shift = -self.bn.running_mean if self.bias is None else self.bias - self.bn.running_mean
        bias = shift * factor
        return self._scaled(factor), bias + self.bn.bias if self.bn.affine else bias

    def _quantized(self, weight: Tensor, bias: Tensor | None, input_scale: Tensor | None) -> Tensor:
        fake_quant = self.weight_fake_quant
        if fake_quant is None or not fake_quant.quantizing:
            return weight
        self._settle(fake_quant, weight.detach())
        if bias is not None and input_scale is not None:
            fake_quant.raise_scale(smallest_weight_scale(bias.detach(), input_scale))
        return fake_quant.quantize(weight)

    def _settle(self, fake_quant: FakeQuantize, weight: Tensor) -> None:
        if fake_quant.spec.scale == "fixed" or not fake_quant.calibrated_already:
            self._follow(fake_quant, weight)
        elif len(self.pairs):
            fake_quant.raise_scale(least_scale(weight.float(), self.pairs))

    def _follow(self, fake_quant: FakeQuantize, weight: Tensor) -> None:
        observer = fake_quant.activation_post_process
        observer.reset()
        observer(weight)
        fake_quant.update_qparams()
        if len(self.pairs):
            fake_quant.raise_scale(least_scale(weight.float(), self.pairs))

    def _pairs(self) -> Tensor:
        return pair_indices(self.weight.shape, self.pair_orders)

    @torch.no_grad()
    def calibrate_weight(self) -> None:
        """Give the weight's quantizer the range of the present folded weight."""
        if self.weight_fake_quant is not None:
            self._follow(self.weight_fake_quant, self._folded()[0])

    @torch.no_grad()
    def settle_weight(self) -> None:
        """Give the weight's quantizer the scale that the next forward computes with; a learned one stays if legal."""
        if self.weight_fake_quant is not None:
            self._settle(self.weight_fake_quant, self._folded()[0])

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Float weight and bias with the batch norm folded in, detached: ``w * gamma / sqrt(var + eps)`` and
        ``beta + (b - mean) * gamma / sqrt(var + eps)``; the bias is None only without bias and batch norm.
        """
        weight, bias = self._folded()
        return weight.detach().clone(), None if bias is None else bias.detach().clone()

    @torch.no_grad()
    def integer(self, input_scale: Tensor | None) -> IntegerWeights:
        """The layer's numbers as an integer runtime stores them.

        Args:
            input_scale: float32 [1], the scale of the layer's input; None leaves the bias in float.

        Raises:
            ValueError: the weight is not quantized.
        """
        fake_quant = self.weight_fake_quant
        if fake_quant is None:
            raise ValueError("integer: the weight has no quantizer, call quantize_weight first")
        weight, bias = self.folded()
        self._quantized(weight, bias, input_scale)
        qparams = fake_quant.qparams()
        bias_scale = None if input_scale is None else input_scale.float() * qparams.scale
        return IntegerWeights(
            weight=quantize(weight, qparams),
            weight_scale=qparams.scale,
            weight_zero_point=qparams.zero_point,
            bias=bias if bias is None or bias_scale is None else quantize_bias(bias, bias_scale),
            bias_scale=bias_scale,
        )

    def freeze_bn_stats(self) -> None:
        """Use the running statistics and stop updating them, in training too (torch.ao's verb)."""
        self.bn_frozen = True
        self.train(self.training)

    def update_bn_stats(self) -> None:
        """In training use the batch's statistics and update the running ones (torch.ao's verb)."""
        self.bn_frozen = False
        self.train(self.training)

    def train(self, mode: bool = True) -> Any:
        """Set the mode; a frozen batch norm stays in eval mode."""
        super().train(mode)
        if self.bn is not None and self.bn_frozen:
            self.bn.eval()
        return self

    def _tail(self) -> str:
        names = [type(part).__name__ for part in (self.bn, self.activation) if part is not None]
        quantizer = [] if self.weight_fake_quant is None else [f"w={self.weight_fake_quant.spec}"]
        return " ".join(["", *names, *quantizer])


def _beside_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def float_layer(layer: Any, weight: Tensor, bias: Tensor | None, source: QuantizableLayer) -> nn.Module:
    """``layer`` with the numbers of ``source``, followed by its activation if there is one."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    layer.train(source.training)
    return layer if source.activation is None else nn.Sequential(layer, source.activation)
