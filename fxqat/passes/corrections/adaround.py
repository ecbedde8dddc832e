"""AdaRound: learn for each weight whether to round up or down, layer by layer, from the layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxqat.graph.pipeline import PassReport
from fxqat.passes.corrections.layerwise import Layer, LayerBatch, Material, layers, lockstep
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.pairs import bounding_weights
from fxqat.quant.rounding import Columns, Options, learn_codes
from fxqat.quant.spec import QParams

# A folding factor below this turns a code into a weight that float32 cannot give back.
_SMALLEST_FACTOR = 2.0**-20


@dataclass(frozen=True, kw_only=True)
class AdaRound:
    """AdaRound (Nagel et al. 2020, arXiv:2004.10568) for every quantized weight, on sampled positions.

    A layer's columns are the patches of its quantized input at random positions of the images, its target is the float
    network's output there, and the loss counts after the activation (the paper's eq. 25). The arithmetic is in
    ``fxqat.quant.rounding``. Where the rounding learned is no better than rounding to nearest on columns that were held
    back, the layer keeps its weights.

    What is written back are float weights that lie on the codes after folding: ``w = code * scale / (gamma / sigma)``.
    The largest magnitude of each channel keeps its code, and pairs of weights that decide the scale keep their values
    (see ``fxqat.quant.pairs``), so the quantizer takes the old scale from the new weight, and convert finds exactly the
    codes that were learned. Training may start from them as from any other weight.

    Args:
        images: how many to sample from; all are in memory at once (one layer's outputs of each, twice).
        columns: sampled positions of a layer, a quarter of which is held back.
        iterations: steps of Adam for each layer.
        seed: of the positions and of the order of columns.
    """

    images: int = 32
    columns: int = 2048
    iterations: int = 400
    seed: int = 0
    name: str = "adaround"
    before_ranges: bool = False

    def __post_init__(self) -> None:
        for option, least in (("images", 1), ("columns", 8), ("iterations", 1)):
            if getattr(self, option) < least:
                raise ValueError(f"{option}: {getattr(self, option)!r} is not legal, expected {least} or more")

    def __call__(self, gm: fx.GraphModule, material: Material) -> PassReport:
        """Learn and write back every quantized layer's weight, each after those before it."""
        images = list(material.images.spread(self.images))
        count, total = -(-self.columns // len(images)), sum(layer.integer for layer in layers(gm))
        generator = torch.Generator().manual_seed(self.seed)
        options = Options(iterations=self.iterations, seed=self.seed)
        gains: dict[str, float] = {}

        def visit(layer: Layer, seen: list[LayerBatch]) -> list[Tensor] | None:
            if not layer.integer:
                return None
            gains[layer.site] = _learn(layer, _sample(layer.module, seen, count, generator), options)
            material.progress(len(gains), total)
            return [layer.module(*one.arguments) for one in seen]

        lockstep(gm, material.reference, images, visit)
        better = sum(gain > 0 for gain in gains.values())
        says = f"{better} of {total} weights rounded by learning, the others to nearest ({len(images)} images)"
        return PassReport(says=says, figures={"held-back error removed": gains})


def _sample(module: QATConv2d | QATLinear, seen: list[LayerBatch], count: int, generator: torch.Generator) -> Columns:
    """``count`` columns of each image."""
    parts = [_columns(module, one, count, generator) for one in seen]
    return Columns(
        inputs=torch.cat([part.inputs for part in parts], 1), targets=torch.cat([part.targets for part in parts], 1)
    )


def _columns(module: QATConv2d | QATLinear, seen: LayerBatch, count: int, generator: torch.Generator) -> Columns:
    if isinstance(module, QATLinear):
        return Columns(inputs=seen.arguments[0].flatten(0, -2)[None], targets=seen.reference.flatten(0, -2)[None])
    height, width = seen.reference.shape[-2:]
    at = torch.randint(height * width, (count,), generator=generator)
    inputs = patches(module, seen.arguments[0], at // width, at % width)
    targets = seen.reference[0].flatten(1)[:, at].view(module.groups, -1, count).transpose(1, 2)
    return Columns(inputs=inputs, targets=targets)


def patches(conv: QATConv2d, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What the outputs of ``conv`` at ``rows`` and ``columns`` are computed from: [groups, positions, inputs * kernel].

    Args:
        conv: stride, padding and dilation are its own.
        x: (1, C, H, W).
        rows, columns: int64 [positions], in the output.
    """
    (top, left), (down, right) = conv.zeros_before, conv.stride
    padded = F.pad(x[0], (left, left, top, top))
    y, z = (torch.arange(size) * step for size, step in zip(conv.kernel_size, conv.dilation, strict=True))
    found = padded[:, (rows * down)[:, None, None] + y[:, None], (columns * right)[:, None, None] + z]
    return found.view(conv.groups, -1, *found.shape[1:]).permute(0, 2, 1, 3, 4).flatten(2)


def _learn(layer: Layer, columns: Columns, options: Options) -> float:
    """Replace the layer's weight if that is better; return the share of the held-back error that is removed, or 0."""
    module, fake = layer.module, layer.module.weight_fake_quant
    assert fake is not None
    weight, bias = module.folded()
    qparams = fake.qparams()
    groups = module.groups if isinstance(module, QATConv2d) else 1
    codes, gain = learn_codes(weight, bias, qparams, columns, groups, layer.activation, options, pairs=module.pairs)
    if gain > 0:
        write_codes(module, codes, qparams)
    return gain


@torch.no_grad()
def write_codes(module: QATConv2d | QATLinear, codes: Tensor, qparams: QParams) -> None:
    """Give ``module`` the weight that folds and quantizes to ``codes``, channels that batch norm switches off excepted.

    Weights whose pairs decide the scale stay as they are: they round to their codes, and on the codes themselves a
    smaller scale would do.

    Args:
        module: changed in place.
        codes: int32, shape of the weight.
        qparams: of the weight's quantizer.
    """
    shape = (-1, *[1] * (codes.dim() - 1))
    weight = (codes - qparams.zero_point.view(shape)).float() * qparams.scale.view(shape)
    bounding = bounding_weights(module.folded()[0], module.pairs, qparams.scale)
    if module.bn is None:
        module.weight.data.copy_(torch.where(bounding, module.weight.data, weight))
        return
    factor = module._factor().view(shape)
    kept = (factor.abs() < _SMALLEST_FACTOR) | bounding
    module.weight.data.copy_(torch.where(kept, module.weight.data, weight / torch.where(kept, 1.0, factor)))
