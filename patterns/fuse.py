"""Which layers become one: read from the top, each rule in one sweep over the graph, so the longest patterns stand
first."""

from __future__ import annotations

import copy

from torch import fx, nn

from fxqat.graph.match import NoMatch, module, value
from fxqat.graph.rewrite import Edit, rule
from fxqat.graph.site import module_of, site_of
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
    """Conv2d, BatchNorm2d, SiLU: the block Ultralytics calls Conv; 57 of YOLOv8n's 64 convolutions."""
    return _fused(edit, x, conv, bn, nn.SiLU())


@rule(module((nn.ReLU, QATReLU), bn, name="act"))
def conv_bn_relu(edit: Edit, x: fx.Node, conv: fx.Node, bn: fx.Node, act: fx.Node) -> fx.Node:
    """Conv2d, BatchNorm2d, ReLU: the same block in a model trained with ``activation: nn.ReLU()``."""
    return _fused(edit, x, conv, bn, QATReLU())


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


@rule(conv)
def conv_alone(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
    """Conv2d by itself: the six that give YOLOv8n's logits, and the DFL's."""
    return _fused(edit, x, conv, None, None)


@rule(module(nn.BatchNorm2d, x, name="norm"))
def norm_alone(edit: Edit, x: fx.Node, norm: fx.Node) -> fx.Node:
    """BatchNorm2d by itself: the identity branch of RepVGG's blocks. It stays in float."""
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
    conv_bn_silu,
    conv_bn_relu,
    conv_bn,
    conv_silu,
    conv_relu,
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
