"""The modules that rules put into graphs."""

from fxqat.quant.modules.batch_norm import QATBatchNorm2d, freeze_bn_stats, update_bn_stats
from fxqat.quant.modules.conv import QATConv2d
from fxqat.quant.modules.layer import IntegerWeights
from fxqat.quant.modules.linear import QATLinear
from fxqat.quant.modules.relu import QATReLU

__all__ = [
    "IntegerWeights",
    "QATBatchNorm2d",
    "QATConv2d",
    "QATLinear",
    "QATReLU",
    "freeze_bn_stats",
    "update_bn_stats",
]
