"""Activations that a model computes by functions, as modules: rules and targets know activations by their modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

# By function, or by method of a tensor.
_MODULES: Mapping[Any, type[nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.silu: nn.SiLU,
    F.leaky_relu: nn.LeakyReLU,
    F.hardswish: nn.Hardswish,
}
_SLOPE = 0.01  # of F.leaky_relu


def activation_module(node: fx.Node) -> nn.Module | None:
    """The module that computes the same as ``node``, which calls an activation function; None for any other node.

    None also for one that writes into its input where something else reads that: it then means the written values.
    """
    kind = _MODULES.get(node.target) if node.op in {"call_function", "call_method"} else None
    if kind is None or (_in_place(node) and len(node.all_input_nodes[0].users) > 1):
        return None
    if kind is not nn.LeakyReLU:
        return kind()
    slope: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", _SLOPE)
    return kind(slope)


def _in_place(node: fx.Node) -> bool:
    """Whether ``inplace`` is given: by name, or as the last of F's arguments."""
    position = 2 if node.target is F.leaky_relu else 1
    return bool(node.kwargs.get("inplace", node.args[position] if len(node.args) > position else False))
