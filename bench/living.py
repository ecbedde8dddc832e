"""Checkpoints of architectures with random weights, through which a signal passes as through trained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fxqat.models import offline

# Random queries and keys are much alike: unscaled, their products would reach 100, and softmax would see one token.
_CALM = 0.25


def write_living(name: str, path: Path, batch: Tensor) -> Path:
    """Write a checkpoint of a new model whose batch norms know the statistics of ``batch``.

    With those of a fresh model the signal fades along the layers to values that are nearly 0, with which codes say
    nothing and float arithmetic is slow (denormal numbers).

    Args:
        name: an architecture that Ultralytics knows, with ``.yaml``.
        path: of the checkpoint.
        batch: (N, 3, H, W), float32 in 0..1.
    """
    offline.quiet()
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(name).model
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for layer in model.modules():
        if isinstance(getattr(getattr(layer, "qkv", None), "bn", None), nn.BatchNorm2d):
            layer.qkv.bn.weight.data *= _CALM
    torch.save({"model": model.eval()}, path)
    return path
