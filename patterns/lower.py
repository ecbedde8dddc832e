"""From the trained graph to the INT8 reference graph: explicit quantize and dequantize operations, integer weights,
nothing learned."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.graph.match import NoMatch, function, method, module, one_of, value
from fxqat.graph.rewrite import Edit, rule
from fxqat.graph.site import module_of, site_of
from fxqat.models.families.opaque import TrainingOnly
from fxqat.passes.quant_graph import QUANTIZED, quant_info
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATBatchNorm2d, QATConv2d, QATLinear
from fxqat.quant.spec import QParams, QuantSpec
from fxqat.quant.torch_ao import dequantize_per_channel, dequantize_per_tensor, quantize_per_tensor

x = value("x")
logits = method("unflatten", x, name="sides")
bins = method("softmax", method("transpose", logits), name="softmax")
INT32 = (-(2**31), 2**31 - 1, torch.int32)


@rule(method("squeeze", module(QATConv2d, bins, name="conv"), name="root"))
def dfl_as_one_product(
    edit: Edit, x: fx.Node, sides: fx.Node, softmax: fx.Node, conv: fx.Node, root: fx.Node
) -> fx.Node:
    """The DFL with its bins last and its expectation as one matrix product.

    ``d = softmax(z) V``, V (4 * bins, 4) with the convolution's weights down its diagonal blocks. A softmax over a
    strided axis takes an eighth of YOLOv8n's time in ONNX Runtime, and a product with one vector a tenth.
    """
    dfl, form = module_of(conv), cast(tuple[int, int], sides.args[2])
    if dfl.out_channels != 1 or dfl.weight_fake_quant is not None:
        raise NoMatch("it is no expectation in float", conv)
    site = site_of(root).rpartition(".")[0]
    blocks = torch.block_diag(*[dfl.weight.detach().view(-1, 1)] * form[0])
    values = edit.attribute(f"{site}.values", blocks)
    last = edit.function(torch.transpose, x, 1, 2, at=f"{site}.transpose")
    split = edit.function(torch.unflatten, last, 2, form, at=sides)
    flat = edit.function(torch.flatten, edit.function(torch.softmax, split, -1, at=softmax), 2, at=f"{site}.flatten")
    return edit.function(torch.transpose, edit.function(torch.matmul, flat, values, at=f"{site}.matmul"), 1, 2, at=root)


@rule(module((QATConv2d, QATLinear), x, name="layer"))
def float_layer(edit: Edit, x: fx.Node, layer: fx.Node) -> fx.Node:
    """A convolution or linear layer that the policy leaves in float: batch norm folded, activation apart."""
    fused = module_of(layer)
    if fused.weight_fake_quant is not None:
        raise NoMatch("its weight is quantized", layer)
    folded = edit.call(fused.with_activation(None).to_float(), x, at=layer)
    if fused.activation is None:
        return folded
    return edit.call(fused.activation, folded, at=f"{site_of(layer)}.{type(fused.activation).__name__.lower()}")


@rule(module((TrainingOnly, nn.Dropout), x))
def nothing_to_train(edit: Edit, x: fx.Node) -> fx.Node:
    """What matters in training alone."""
    return x


@rule(module(QATBatchNorm2d, x, name="norm"))
def float_norm(edit: Edit, x: fx.Node, norm: fx.Node) -> fx.Node:
    """A batch norm by itself as a product and a sum with constants of its channels."""
    factor, shift = module_of(norm).folded()
    site = site_of(norm)
    gains, offsets = (
        edit.attribute(f"{_folder(site)}.{name}", one.view(-1, 1, 1))
        for name, one in (("factor", factor), ("shift", shift))
    )
    product = edit.function(operator.mul, x, gains, at=f"{site}.mul")
    return edit.function(operator.add, product, offsets, at=norm)


@rule(module((QATConv2d, QATLinear), x, value("scale"), name="layer"))
def integer_layer(edit: Edit, x: fx.Node, scale: fx.Node, layer: fx.Node) -> fx.Node:
    """A quantized convolution or linear layer: int8 weight, int32 bias with scale ``s_x * s_w``, each followed by its
    dequantize."""
    fused, site = module_of(layer), site_of(layer)
    numbers = fused.integer(edit.tensor(scale))
    weight = _dequantized(
        edit, site, "weight", numbers.weight, numbers.weight_scale, _codes(fused.weight_fake_quant.spec)
    )
    bias = None if numbers.bias is None else _dequantized(edit, site, "bias", numbers.bias, numbers.bias_scale, INT32)
    return _layer(edit, x, weight, bias, layer)


@rule(module((QATConv2d, QATLinear), x, name="layer"))
def integer_layer_float_bias(edit: Edit, x: fx.Node, layer: fx.Node) -> fx.Node:
    """A quantized convolution or linear layer of a target that adds the bias in float: int8 weight, float bias."""
    fused, site = module_of(layer), site_of(layer)
    if fused.weight_fake_quant is None:
        raise NoMatch("its weight is not quantized", layer)
    numbers = fused.integer(None)
    weight = _dequantized(
        edit, site, "weight", numbers.weight, numbers.weight_scale, _codes(fused.weight_fake_quant.spec)
    )
    bias = None if numbers.bias is None else edit.attribute(f"{_folder(site)}.bias", numbers.bias)
    return _layer(edit, x, weight, bias, layer)


@rule(module(FakeQuantize, x, name="fake"))
def fake_quantize(edit: Edit, x: fx.Node, fake: fx.Node) -> fx.Node:
    """A fake quantizer as the two operations it stands for."""
    return _quantized(edit, x, module_of(fake).qparams(), site_of(fake))


_PADS = (nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)


@rule(
    one_of(
        module((nn.MaxPool2d, nn.Upsample, nn.PixelShuffle, nn.Identity, *_PADS)),
        function((torch.cat, operator.getitem)),
        method("flatten"),
        name="root",
    )
)
def carried_codes(edit: Edit, root: fx.Node) -> fx.Node:
    """An operation that only moves values: its output has its inputs' codes, so it is quantized as they are."""
    if (quantizer := quant_info(root).quantizer) is None:
        raise NoMatch("its inputs are not integers of one scale", root)
    if any(user.target is quantize_per_tensor for user in root.users):
        raise NoMatch("it is quantized already", root)
    fake = cast(FakeQuantize, edit.gm.get_submodule(quantizer))
    return _quantized(edit, root, fake.qparams(), f"{site_of(root)}{QUANTIZED}")


LOWER = (
    dfl_as_one_product,
    nothing_to_train,
    float_layer,
    float_norm,
    integer_layer,
    integer_layer_float_bias,
    carried_codes,
    fake_quantize,
)


def _layer(edit: Edit, x: fx.Node, weight: fx.Node, bias: fx.Node | None, layer: fx.Node) -> fx.Node:
    """The layer as a function of its dequantized weight, its activation after it."""
    fused = module_of(layer)
    if isinstance(fused, QATConv2d):
        y = edit.function(
            torch.conv2d, x, weight, bias, fused.stride, fused.padding, fused.dilation, fused.groups, at=layer
        )
    else:
        y = edit.function(F.linear, x, weight, bias, at=layer)
    if fused.activation is None:
        return y
    return edit.call(fused.activation, y, at=f"{site_of(layer)}.{type(fused.activation).__name__.lower()}")


def _quantized(edit: Edit, x: fx.Node, numbers: QParams, site: str) -> fx.Node:
    how = (float(numbers.scale), int(numbers.zero_point), numbers.quant_min, numbers.quant_max, numbers.dtype)
    codes = edit.function(quantize_per_tensor, x, *how, at=f"{site.removesuffix(QUANTIZED)}.codes")
    return edit.function(dequantize_per_tensor, codes, *how, at=site)


def _dequantized(
    edit: Edit, site: str, name: str, codes: Tensor, scale: Tensor, form: tuple[int, int, torch.dtype]
) -> fx.Node:
    folder = _folder(site)
    stored = edit.attribute(f"{folder}.{name}", codes)
    if scale.numel() == 1:
        return edit.function(dequantize_per_tensor, stored, float(scale), 0, *form, at=f"{site}.{name}")
    scales = edit.attribute(f"{folder}.{name}_scale", scale)
    zeros = edit.attribute(f"{folder}.{name}_zero_point", torch.zeros(scale.numel(), dtype=torch.int64))
    return edit.function(dequantize_per_channel, stored, scales, zeros, 0, *form, at=f"{site}.{name}")


def _folder(site: str) -> str:
    return f"integer.{site.replace('.', '_')}"


def _codes(spec: QuantSpec) -> tuple[int, int, torch.dtype]:
    return spec.quant_min, spec.quant_max, spec.dtype
