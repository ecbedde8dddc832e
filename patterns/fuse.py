"""Which layers become one: read from the top, each rule in one sweep over the graph, so the longest patterns stand
first."""

from __future__ import annotations

import copy
import operator

import torch
from torch import fx, nn

from fxqat.graph.match import NoMatch, function, module, value
from fxqat.graph.rewrite import Edit, rule
from fxqat.graph.site import module_of, site_of
from fxqat.quant.fold import parallel, spread
from fxqat.quant.modules import QATBatchNorm2d, QATConv2d, QATLinear, QATReLU

x = value("x")
conv = module(nn.Conv2d, x, name="conv")
bn = module(nn.BatchNorm2d, conv, name="bn")


@rule(conv)
def padding_by_itself(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
    """Conv2d with ``padding_mode`` reflect, replicate or circular: a Pad, which only moves values, and a convolution
    without padding, since integer kernels pad with zeros alone."""
    found = module_of(conv)
    if found.padding_mode == "zeros":
        raise NoMatch("it pads with zeros", conv)
    pad = _PADS[found.padding_mode](tuple(found._reversed_padding_repeated_twice))
    padded = edit.call(pad.train(found.training), x, at=f"{site_of(conv)}_pad")
    bare = copy.copy(found)
    bare.padding, bare.padding_mode = (0, 0), "zeros"
    return edit.call(bare, padded, at=conv)


_PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}


@rule(module(nn.SiLU, bn, name="act"))
def conv_bn_silu(edit: Edit, x: fx.Node, conv: fx.Node, bn: fx.Node, act: fx.Node) -> fx.Node:
    """Conv2d, BatchNorm2d, SiLU: the block that Ultralytics calls Conv."""
    return _fused(edit, x, conv, bn, nn.SiLU())


@rule(module((nn.ReLU, QATReLU), bn, name="act"))
def conv_bn_relu(edit: Edit, x: fx.Node, conv: fx.Node, bn: fx.Node, act: fx.Node) -> fx.Node:
    """Conv2d, BatchNorm2d, ReLU: the same block in a model trained with ``activation: nn.ReLU()``."""
    return _fused(edit, x, conv, bn, QATReLU())


@rule(
    module(
        nn.SiLU,
        function(
            (operator.add, torch.add),
            module(nn.BatchNorm2d, module(nn.Conv2d, x, name="large"), name="bn"),
            module(nn.BatchNorm2d, module(nn.Conv2d, x, name="small"), name="bn_small"),
        ),
        name="act",
    )
)
def parallel_convs_silu(
    edit: Edit, x: fx.Node, large: fx.Node, bn: fx.Node, small: fx.Node, bn_small: fx.Node, act: fx.Node
) -> fx.Node:
    """RepConv and RepVGGDW: two convolutions of one input, added, are one convolution (arXiv:2101.03697, section 3.3);
    their batch norms are folded, as in Ultralytics' deployed form."""
    try:
        one = parallel(module_of(large), module_of(bn), module_of(small), module_of(bn_small))
        return edit.call(QATConv2d.fused(one, None, nn.SiLU()), x, at=large)
    except ValueError as error:
        raise NoMatch(str(error), small) from error


@rule(bn)
def conv_bn(edit: Edit, x: fx.Node, conv: fx.Node, bn: fx.Node) -> fx.Node:
    """Conv2d, BatchNorm2d: a Conv with ``act=False``, or with an activation that has no rule of its own."""
    return _fused(edit, x, conv, bn, None)


@rule(module(nn.SiLU, conv, name="act"))
def conv_silu(edit: Edit, x: fx.Node, conv: fx.Node, act: fx.Node) -> fx.Node:
    """Conv2d, SiLU: the same block in a checkpoint that was saved after Ultralytics' ``model.fuse()``."""
    return _fused(edit, x, conv, None, nn.SiLU())


@rule(module((nn.ReLU, QATReLU), conv, name="act"))
def conv_relu(edit: Edit, x: fx.Node, conv: fx.Node, act: fx.Node) -> fx.Node:
    """Conv2d, ReLU: such a block with ``activation: nn.ReLU()``."""
    return _fused(edit, x, conv, None, QATReLU())


@rule(module(nn.ConvTranspose2d, x, name="conv"))
def transposed_conv(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
    """ConvTranspose2d whose steps are as wide as its kernel: a convolution of one place, whose channels become places.
    Runtimes have integer kernels for the latter."""
    try:
        one, shuffle = spread(module_of(conv))
    except ValueError as error:
        raise NoMatch(str(error), conv) from error
    return edit.call(shuffle, edit.call(QATConv2d.fused(one), x, at=conv), at=f"{site_of(conv)}.shuffle")


@rule(conv)
def conv_alone(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
    """Conv2d without batch norm and activation, such as the last convolutions of a head, and that of the DFL."""
    return _fused(edit, x, conv, None, None)


@rule(module(nn.BatchNorm2d, x, name="norm"))
def norm_alone(edit: Edit, x: fx.Node, norm: fx.Node) -> fx.Node:
    """BatchNorm2d without a convolution before it: the identity branch of RepVGG's blocks. It stays in float."""
    given = module_of(norm)
    if isinstance(given, QATBatchNorm2d):
        raise NoMatch("it is a QATBatchNorm2d already", norm)
    if given.running_var is None:
        raise NoMatch("no running statistics, expected track_running_stats=True", norm)
    return edit.call(QATBatchNorm2d.of(given), x, at=norm)


@rule(module(nn.Linear, x, name="linear"))
def linear(edit: Edit, x: fx.Node, linear: fx.Node) -> fx.Node:
    """Linear: the last layer of a classifier."""
    return edit.call(QATLinear.fused(module_of(linear)), x, at=linear)


FUSE = (
    padding_by_itself,
    parallel_convs_silu,
    conv_bn_silu,
    conv_bn_relu,
    conv_bn,
    conv_silu,
    conv_relu,
    transposed_conv,
    conv_alone,
    norm_alone,
    linear,
)


def _fused(edit: Edit, x: fx.Node, conv: fx.Node, bn: fx.Node | None, activation: nn.Module | None) -> fx.Node:
    norm = None if bn is None else module_of(bn)
    try:
        fused = QATConv2d.fused(module_of(conv), norm, activation)
    except ValueError as error:
        raise NoMatch(str(error), bn or conv) from error
    return edit.call(fused, x, at=conv)
