"""The pass lower: fake quantization becomes integer weights and explicit quantize and dequantize operations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.prune import drop_unused_modules
from fxqat.graph.rewrite import Rule, rewrite
from fxqat.passes.fuse import summary
from fxqat.passes.stages import int8, qat
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.targets import Target


@dataclass(frozen=True, kw_only=True)
class Lower(TextPass):
    """Freeze every range, fold every batch norm, and write quantization as operations on integer buffers."""

    rules: tuple[Rule, ...]
    target: Target
    name: str = "lower"

    @property
    def requires(self) -> Stage:
        """The QAT stage of the target."""
        return qat(self.target)

    @property
    def gives(self) -> Stage:
        """The INT8 stage of the target."""
        return int8(self.target)

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Lower."""
        done = rewrite(gm.eval(), self.rules)
        gm.graph.eliminate_dead_code()
        _layers_as_folders(gm)
        drop_unused_modules(gm)
        return PassReport(says=summary(done), rewrites=done)


def is_integer(gm: fx.GraphModule) -> bool:
    """Whether a lowered graph rounds any tensor; under a policy that keeps everything in float it does not."""
    return any(node.target is quantize_per_tensor for node in gm.graph.nodes)


def _layers_as_folders(gm: fx.GraphModule) -> None:
    """An activation that a layer held stays at its path, ``model.0.conv.silu``; the layer above it, and its float
    weight, do not."""
    for path, layer in list(gm.named_modules()):
        if isinstance(layer, (QATConv2d, QATLinear)):
            folder = nn.Module().train(gm.training)
            for name, child in layer.named_children():
                folder.add_module(name, child)
            gm.add_submodule(path, folder)
