"""All imports from torch.ao: base classes, switch functions, configurations, quantized_decomposed operators."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch.ao.quantization.fake_quantize import (
    FakeQuantizeBase,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
)
from torch.ao.quantization.observer import NoopObserver, ObserverBase
from torch.ao.quantization.qconfig import QConfig as TorchQConfig
from torch.ao.quantization.qconfig_mapping import QConfigMapping as TorchQConfigMapping

from fxqat.errors import Problem
from fxqat.quant.spec import TORCH_OBSERVERS, nearest

__all__ = [
    "FakeQuantizeBase",
    "NoopObserver",
    "ObserverBase",
    "TorchQConfig",
    "TorchQConfigMapping",
    "dequantize_per_channel",
    "dequantize_per_tensor",
    "disable_fake_quant",
    "disable_observer",
    "enable_fake_quant",
    "enable_observer",
    "observer_class",
    "quantize_per_channel",
    "quantize_per_tensor",
]

quantize_per_tensor = torch.ops.quantized_decomposed.quantize_per_tensor.default
dequantize_per_tensor = torch.ops.quantized_decomposed.dequantize_per_tensor.default
quantize_per_channel = torch.ops.quantized_decomposed.quantize_per_channel.default
dequantize_per_channel = torch.ops.quantized_decomposed.dequantize_per_channel.default


def observer_class(name: str, site: str = "") -> type[ObserverBase]:
    """The torch.ao observer class called ``name``, such as "torch.ao.quantization.observer.MinMaxObserver".

    Raises:
        Problem: the name is outside torch.ao.quantization, unknown there, or not an observer.
    """
    if not name.startswith(TORCH_OBSERVERS):
        raise Problem(site, f"observer {name!r} is not allowed", expected=f"a name that starts with {TORCH_OBSERVERS}")
    module_name, _, attribute = name.rpartition(".")
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise Problem(site, f"observer {name!r}: torch has no module {module_name!r}") from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, ObserverBase)):
        near = nearest(attribute, [word for word in dir(module) if word.endswith("Observer")])
        remedy = f"did you mean {near!r}?" if near else ""
        raise Problem(site, f"observer {name!r} is no observer class of torch", remedy=remedy)
    return found
