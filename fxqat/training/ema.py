"""Ultralytics' moving average of the weights, for models whose buffers are no statistics."""

from __future__ import annotations

from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
import torch
from torch import nn
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

# A schedule may switch the trained model's quantizers; what is validated and kept always quantizes.
_SWITCHES = ("fake_quant_enabled", "observer_enabled")


class AveragedModel(ModelEMA):
    """Averages parameters and batch norms' statistics; every other buffer is taken as it is.

    Ultralytics averages all floating buffers, which makes NaN of the infinities of an observer that has seen nothing,
    and leaves zero points behind, since they are integers.
    """

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``."""
        if not self.enabled:
            return
        self.updates += 1
        share = 1 - self.decay(self.updates)
        source = unwrap_model(model)
        parameters = dict(source.named_parameters())
        for name, mine in self.ema.named_parameters():
            mine.lerp_(parameters[name].detach(), share)
        buffers = dict(source.named_buffers())
        for name, mine in self.ema.named_buffers():
            leaf = name.rpartition(".")[2]
            if leaf in ("running_mean", "running_var"):
                mine.lerp_(buffers[name], share)
            elif leaf not in _SWITCHES and mine.shape == buffers[name].shape:
                mine.copy_(buffers[name])
