"""Channels of convolutions that an architecture does not tell: a model fine-tuned to other classes keeps the width of
its class branch, and a pruned one has fewer channels everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fxqat.errors import Problem

Channels = Mapping[str, tuple[int, int]]


def channels_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(in, out) channels of every convolution, by its path in ``model``."""
    convolutions = ((name, one) for name, one in model.named_modules() if isinstance(one, nn.Conv2d))
    return {name: (one.in_channels, one.out_channels) for name, one in convolutions}


def set_channels(model: nn.Module, channels: Channels, where: str) -> None:
    """Give convolutions, and the batch norms beside them, the channels that are told; new ones have random weights.

    Raises:
        Problem: a path that is no convolution, or channels that cannot be, with ``where``.
    """
    for path, wanted in channels.items():
        parent_path, _, name = path.rpartition(".")
        try:
            parent = model.get_submodule(parent_path)
            old = parent.get_submodule(name)
        except AttributeError:
            old = None
        if not isinstance(old, nn.Conv2d):
            raise Problem(where, f"tells the channels of {path}, which is no convolution of its architecture")
        if (old.in_channels, old.out_channels) == tuple(wanted):
            continue
        setattr(parent, name, _like(old, *wanted, where=f"{where}: {path}"))
        if isinstance(norm := getattr(parent, "bn", None), nn.BatchNorm2d) and name == "conv":
            parent.bn = nn.BatchNorm2d(wanted[1], eps=norm.eps, momentum=norm.momentum)


def _like(old: nn.Conv2d, inputs: int, outputs: int, where: str) -> nn.Conv2d:
    groups = inputs if old.groups == old.in_channels > 1 else old.groups
    geometry = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    try:
        return nn.Conv2d(inputs, outputs, groups=groups, bias=old.bias is not None, **geometry)
    except (ValueError, RuntimeError, TypeError) as error:
        raise Problem(where, f"cannot have {inputs} channels in and {outputs} out ({error})") from error
