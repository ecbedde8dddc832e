"""How a target's integer kernels want a block written, before quantizers are placed after its operations."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from fxqat.graph.match import NoMatch, module, value
from fxqat.graph.rewrite import Edit, rule
from fxqat.graph.site import module_of, site_of
from fxqat.passes.quant_graph import annotate, quant_info
from fxqat.quant.modules import QATConv2d

conv = module(QATConv2d, value("x"), name="conv")


@rule(conv)
def silu_as_sigmoid_and_mul(edit: Edit, x: fx.Node, conv: fx.Node) -> fx.Node:
    """Conv and SiLU as Conv, Sigmoid, Mul: ONNX Runtime has integer kernels for these three and none for SiLU.

    ``SiLU(v) = v * sigmoid(v)``. The range of ``v`` is chosen by the policy's ``preactivation`` spec: it is wide (on
    YOLOv8n the minimum over coco128 is -178 in the worst site), while all of it below about -6 ends near 0.
    """
    fused = module_of(conv)
    if not isinstance(fused.activation, nn.SiLU):
        raise NoMatch("its activation is not SiLU", conv)
    info = quant_info(conv)
    if info.activation is None:
        raise NoMatch("the policy leaves it in float", conv)
    before, tensor = edit.call(fused.with_activation(None), x, at=conv), site_of(conv)
    annotate(before, activation=info.preactivation or info.activation, tensor_name=f"{tensor}.before")
    gate = edit.function(torch.sigmoid, before, at=f"{tensor}.sigmoid")
    annotate(gate, weight=None, tensor_name=f"{tensor}.sigmoid")
    silu = edit.function(operator.mul, before, gate, at=f"{tensor}.silu")
    # the fused convolution ended with its activation: this is the tensor that other targets call by its site
    annotate(silu, weight=None, activation=info.activation, tensor_name=tensor)
    return silu


# Of the targets that say so (Target.rules). For OpenVINO and TensorRT a block stays as it is: convolution, SiLU and a
# residual Add are one kernel.
QUANTIZE = {"silu-as-product": (silu_as_sigmoid_and_mul,)}
