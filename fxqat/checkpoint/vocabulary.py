"""The words of a .fxqat file: what a saved graph may be built of. Nothing else is built, whatever a file says.

Passes and rules of your own may put in modules and functions that stand here; more are added by ``register_module`` and
``register_function``, before saving and before loading:

Example:
    from fxqat.checkpoint import vocabulary
    vocabulary.register_module(Scale, arguments=("factor",))  # Scale(factor=...), kept as Scale.factor
    vocabulary.register_function(torch.cumsum)
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from fxqat.checkpoint.notes import read_note, read_spec, write_note, write_spec
from fxqat.errors import Problem
from fxqat.graph.vocabulary import FOLDER, Arguments, ModuleWord, Vocabulary, told_by
from fxqat.models.families import FAMILIES, blocks
from fxqat.models.families.opaque import Opaque
from fxqat.quant.fake_quantize import FakeQuantize, LSQFakeQuantize, PerChannelFakeQuantize, make_fake_quantize
from fxqat.quant.modules import QATBatchNorm2d, QATConv2d, QATLinear, QATReLU
from fxqat.quant.observers import make_observer
from fxqat.quant.pair_order import Order
from fxqat.quant.spec import OBSERVERS, QuantSpec
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor

_GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_MOST_CHANNELS = 1 << 20  # of a quantizer, whose scales are made before the file's take their place

# Classes by the arguments that their constructors keep; those with tensors of their own are made without memory.
_PLAIN: Mapping[type[nn.Module], str] = {
    nn.SiLU: "inplace",
    nn.ReLU: "inplace",
    nn.ReLU6: "inplace",
    QATReLU: "inplace",
    nn.LeakyReLU: "negative_slope inplace",
    nn.Hardswish: "inplace",
    nn.Hardsigmoid: "inplace",
    nn.Hardtanh: "min_val max_val inplace",
    nn.ELU: "alpha inplace",
    nn.CELU: "alpha inplace",
    nn.SELU: "inplace",
    nn.Mish: "inplace",
    nn.GELU: "approximate",
    nn.Softplus: "beta threshold",
    nn.Sigmoid: "",
    nn.LogSigmoid: "",
    nn.Tanh: "",
    nn.Softmax: "dim",
    nn.Identity: "",
    nn.Dropout: "p inplace",
    nn.Dropout2d: "p inplace",
    nn.MaxPool2d: "kernel_size stride padding dilation return_indices ceil_mode",
    nn.AvgPool2d: "kernel_size stride padding ceil_mode count_include_pad divisor_override",
    nn.AdaptiveAvgPool2d: "output_size",
    nn.AdaptiveMaxPool2d: "output_size return_indices",
    nn.Upsample: "size scale_factor mode align_corners recompute_scale_factor",
    nn.ZeroPad2d: "padding",
    nn.ReflectionPad2d: "padding",
    nn.ReplicationPad2d: "padding",
    nn.PixelShuffle: "upscale_factor",
    nn.Flatten: "start_dim end_dim",
    nn.Unflatten: "dim unflattened_size",
    nn.Sequential: "",
}
_WITH_TENSORS: Mapping[type[nn.Module], str] = {
    nn.BatchNorm1d: " ".join(_NORM),
    nn.BatchNorm2d: " ".join(_NORM),
    nn.GroupNorm: "num_groups num_channels eps affine",
    nn.LayerNorm: "normalized_shape eps elementwise_affine",
    nn.PReLU: "num_parameters",
}
# With a bias, which is a tensor or None afterwards.
_WITH_BIAS: Mapping[type[nn.Module], str] = {
    nn.Conv1d: " ".join((*_GEOMETRY, "padding_mode")),
    nn.Conv2d: " ".join((*_GEOMETRY, "padding_mode")),
    nn.ConvTranspose2d: " ".join((*_GEOMETRY, "output_padding", "padding_mode")),
    nn.Linear: "in_features out_features",
}
_FUNCTIONS: Mapping[Any, str] = {
    operator: "add sub mul truediv floordiv mod pow neg matmul getitem eq ne lt le gt ge and_ or_ not_",
    torch: (
        "abs add amax amin arange argmax argmin bmm cat chunk clamp concat conv2d cos div einsum empty exp "
        "flatten full gather index_select log logical_and logical_not logical_or matmul max maximum mean "
        "meshgrid min minimum mul neg ones ones_like permute pow relu repeat_interleave reshape rsqrt sigmoid "
        "sin softmax split sqrt square squeeze stack sub sum tanh topk transpose unbind unflatten unsqueeze "
        "where zeros zeros_like"
    ),
    F: (
        "adaptive_avg_pool2d avg_pool2d batch_norm conv_transpose2d dropout elu gelu hardsigmoid hardswish "
        "hardtanh interpolate layer_norm leaky_relu linear max_pool2d mish normalize one_hot pad relu relu6 "
        "scaled_dot_product_attention sigmoid silu softmax softplus"
    ),
}
_METHODS = (
    "abs add amax amin argmax argmin bmm bool chunk clamp clone contiguous cos cpu detach dim div exp expand "
    "expand_as flatten flip float gather half index_select int log long masked_fill matmul max mean min mul neg "
    "new_full new_ones new_zeros numel permute pow relu repeat repeat_interleave reshape rsqrt scatter sigmoid "
    "sin size softmax split sqrt square squeeze sub sum t tanh to topk transpose type type_as unbind unflatten "
    "unsqueeze view view_as"
)
_ATTRIBUTES = ("shape", "dtype", "device", "ndim")
_QUANTIZED_DECOMPOSED = {
    "quantize_per_tensor": quantize_per_tensor,
    "dequantize_per_tensor": dequantize_per_tensor,
    "dequantize_per_channel": dequantize_per_channel,
}


def register_module(
    kind: type[nn.Module],
    *,
    arguments: Sequence[str] = (),
    read: Callable[[Any], Arguments] | None = None,
    build: Callable[..., nn.Module] | None = None,
    name: str = "",
) -> None:
    """Let files hold modules of class ``kind``. Their tensors, and the modules that they hold, are kept as they are.

    Args:
        kind: the class.
        arguments: of its constructor, which an instance keeps as attributes of the same name.
        read: the arguments of an instance by name, where that is not so: numbers, words, lists, tuples.
        build: an instance of these arguments, in place of ``kind``.
        name: in the file; the class's dotted name by default.

    Raises:
        ValueError: the name is taken.
    """
    told = told_by(kind, arguments)
    word = ModuleWord(kind=kind, read=read or told.read, build=build or (kind if read else told.build))
    _WORDS.append(present().with_words(modules={name or f"{kind.__module__}.{kind.__qualname__}": word}))


def register_function(function: Callable[..., Any], name: str = "") -> None:
    """Let files hold calls of ``function``; ``name`` in the file is its dotted name by default.

    Raises:
        ValueError: the name is taken.
    """
    _WORDS.append(present().with_words(functions={name or f"{function.__module__}.{function.__qualname__}": function}))


def present() -> Vocabulary:
    """The vocabulary as it is now."""
    return _WORDS[-1]


def _biased(kind: type[nn.Module], names: Sequence[str]) -> ModuleWord:
    def read(module: Any) -> Arguments:
        return {**told_by(kind, names).read(module), "bias": module.bias is not None}

    return ModuleWord(kind=kind, read=read, build=told_by(kind, (*names, "bias"), device="meta").build)


def _fused_conv() -> ModuleWord:
    conv = _biased(nn.Conv2d, _GEOMETRY)
    return _fused(QATConv2d, conv, lambda module: QATConv2d.fused(module))


def _fused(kind: type[nn.Module], layer: ModuleWord, make: Callable[[Any], Any]) -> ModuleWord:
    """The word of a layer that holds its batch norm, activation and weight quantizer; these are words of their own."""

    def read(module: Any) -> Arguments:
        orders = [order.value for order in module.pair_orders]
        return {**layer.read(module), "bn_frozen": module.bn_frozen, "pair_orders": orders}

    def build(*, bn_frozen: bool, pair_orders: Sequence[str], **arguments: Any) -> nn.Module:
        made = make(layer.build(**arguments))
        made.bn_frozen, made.pair_orders = bool(bn_frozen), tuple(map(Order, pair_orders))
        return made

    return ModuleWord(kind=kind, read=read, build=build)


def _lone_norm() -> ModuleWord:
    def build(*, bn_frozen: bool, **arguments: Any) -> nn.Module:
        made: Any = told_by(QATBatchNorm2d, _NORM, device="meta").build(**arguments)
        if bn_frozen:
            made.freeze_bn_stats()
        return made

    return ModuleWord(
        kind=QATBatchNorm2d,
        read=lambda one: {name: getattr(one, name) for name in (*_NORM, "bn_frozen")},
        build=build,
    )


def _fake_quantizer(kind: type[FakeQuantize]) -> ModuleWord:
    return ModuleWord(
        kind=kind, read=_read_quantizer, build=_build_quantizer, owns=frozenset({"activation_post_process"})
    )


def _read_quantizer(fake: FakeQuantize) -> Arguments:
    channels = None if fake.ch_axis is None else fake.scale.numel()
    _check_observer_of(fake, channels)
    return {"spec": write_spec(fake.spec), "site": fake.site, "channels": channels, "live": fake.live}


def _build_quantizer(*, spec: Any, site: str, channels: int | None, live: bool) -> nn.Module:
    if channels is not None and not 0 < channels <= _MOST_CHANNELS:
        raise ValueError(f"{channels} channels are not legal")
    read = read_spec(spec)
    if read.observer not in OBSERVERS and read.observer.rpartition(".")[0] not in sys.modules:
        raise ValueError(f"the observer {read.observer!r} is outside the vocabulary")
    try:
        return make_fake_quantize(read, str(site), channels, live=bool(live))
    except Problem as problem:
        raise ValueError(str(problem)) from problem


def _check_observer_of(fake: FakeQuantize, channels: int | None) -> None:
    """Refuse an observer that is not the one its quantizer's spec asks for: it would not come back."""
    kind, wanted = type(fake.activation_post_process), _observer_class(fake.spec, channels)
    if kind is not wanted:
        raise ValueError(f"an observer {kind.__name__} where its spec asks for {wanted.__name__}")


@lru_cache(maxsize=1024)
def _observer_class(spec: QuantSpec, channels: int | None) -> type[nn.Module]:
    return type(make_observer(spec, channels=channels))


def _modules() -> dict[str, ModuleWord]:
    words = [told_by(kind, names.split()) for kind, names in _PLAIN.items()]
    words += [told_by(kind, names.split(), device="meta") for kind, names in _WITH_TENSORS.items()]
    words += [_biased(kind, names.split()) for kind, names in _WITH_BIAS.items()]
    words += [_fused_conv(), _fused(QATLinear, _biased(nn.Linear, ("in_features", "out_features")), QATLinear.fused)]
    words += [_fake_quantizer(kind) for kind in (FakeQuantize, PerChannelFakeQuantize, LSQFakeQuantize)]
    words += [_lone_norm(), *(replace(told_by(kind, kind.arguments), owns=frozenset(kind.owns)) for kind in _opaque())]
    assert FOLDER not in {word.kind.__name__ for word in words}
    return {word.kind.__name__: word for word in words}


def _opaque() -> list[type[Opaque]]:
    """The modules that families and blocks of ours leave whole in a graph."""
    assert FAMILIES, "importing families defines their modules"
    assert blocks.BLOCKS, "and so do blocks"
    return [kind for kind in Opaque.__subclasses__() if kind.__module__.startswith("fxqat.models.families.")]


def _functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"getattr": getattr}
    for module, names in _FUNCTIONS.items():
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names.split()}
    return found | {f"quantized_decomposed.{name}": one for name, one in _QUANTIZED_DECOMPOSED.items()}


_WORDS = [
    Vocabulary(
        modules=_modules(),
        functions=_functions(),
        methods=frozenset(_METHODS.split()),
        attributes=frozenset(_ATTRIBUTES),
        write_note=write_note,
        read_note=read_note,
    )
]

__all__ = ["present", "register_function", "register_module"]
