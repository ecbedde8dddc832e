"""Adapters of blocks that a tracer cannot follow, since they read shapes or call functions with arguments of their own.

An adapter shares the layers of the Ultralytics block it stands for, under the same names, and computes the same
numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fxqat.models.families.blocks.attention import AreaAttentionAdapter, AttentionAdapter
from fxqat.models.families.blocks.elan import AConvAdapter, ADownAdapter, CBFuseAdapter
from fxqat.models.families.blocks.scaled_residual import area_block

# By the name of Ultralytics' class.
BLOCKS: Mapping[str, Callable[[Any], nn.Module]] = {
    "A2C2f": area_block,
    "AAttn": AreaAttentionAdapter,
    "AConv": AConvAdapter,
    "ADown": ADownAdapter,
    "Attention": AttentionAdapter,
    "CBFuse": CBFuseAdapter,
}


def adapt_blocks(layers: nn.Module) -> None:
    """Put adapters in the place of the blocks within ``layers`` that need one, the outermost first."""
    for path, block in list(layers.named_modules()):
        if path and (adapter := BLOCKS.get(type(block).__name__)) is not None:
            layers.set_submodule(path, _like(block, adapter(block)))


def _like(block: Any, adapter: Any) -> nn.Module:
    """Where the block stands in Ultralytics' list of layers, and its mode."""
    for name in ("f", "i"):
        if hasattr(block, name):
            setattr(adapter, name, getattr(block, name))
    made: nn.Module = adapter.train(block.training)
    return made
