"""A batch norm that is not fused into a convolution, and functions that freeze batch norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fxqat.quant.modules.layer import QuantizableLayer


class QATBatchNorm2d(nn.BatchNorm2d):
    """A batch norm that no convolution could fold, freezable by the same verbs as QATConv2d."""

    bn_frozen = False
    asked_to_train = True

    @classmethod
    def of(cls, bn: nn.BatchNorm2d) -> QATBatchNorm2d:
        """The same batch norm, sharing parameters and statistics."""
        made = cls(bn.num_features, bn.eps, bn.momentum, bn.affine, bn.track_running_stats)
        made._parameters, made._buffers = bn._parameters, bn._buffers
        return made.train(bn.training)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Factor ``gamma / sqrt(var + eps)`` and shift ``beta - mean * factor`` of a channel, detached, shape [C]."""
        assert self.running_var is not None
        assert self.running_mean is not None
        factor = torch.rsqrt(self.running_var + self.eps)
        factor = factor * self.weight if self.affine else factor
        shift = -self.running_mean * factor
        return factor, shift + self.bias if self.affine else shift

    def freeze_bn_stats(self) -> None:
        """Use the running statistics and stop updating them, in training too."""
        self.bn_frozen = True
        super().train(False)

    def update_bn_stats(self) -> None:
        """In training use the batch's statistics and update the running ones."""
        self.bn_frozen = False
        super().train(self.asked_to_train)

    def train(self, mode: bool = True) -> Any:
        """Set the mode; a frozen batch norm stays in eval mode."""
        self.asked_to_train = mode
        return super().train(mode and not self.bn_frozen)


def freeze_bn_stats(module: nn.Module) -> None:
    """Freeze ``module``'s batch norm if it has one: ``model.apply(freeze_bn_stats)``."""
    if isinstance(module, QuantizableLayer | QATBatchNorm2d):
        module.freeze_bn_stats()


def update_bn_stats(module: nn.Module) -> None:
    """Let ``module``'s batch norm learn again if it has one: ``model.apply(update_bn_stats)``."""
    if isinstance(module, QuantizableLayer | QATBatchNorm2d):
        module.update_bn_stats()
