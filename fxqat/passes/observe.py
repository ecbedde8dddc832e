"""observe: show real images to the observers, then give every quantizer its scale and zero point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx

from fxqat.errors import Problem
from fxqat.graph.site import site_of
from fxqat.passes.insert import QUANTIZERS
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.torch_ao import disable_fake_quant, disable_observer, enable_fake_quant, enable_observer


def quantizers(gm: fx.GraphModule) -> dict[str, FakeQuantize]:
    """The activation quantizers of a graph by the site they stand for, in the order of the computation."""
    found = dict[str, FakeQuantize]()
    for node in gm.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith(f"{QUANTIZERS}."):
            module = gm.get_submodule(str(node.target))
            if isinstance(module, FakeQuantize) and module not in found.values():
                found[site_of(node).removesuffix(".quantized")] = module
    return found


@torch.no_grad()
def observe(gm: fx.GraphModule, batches: Iterable[Tensor]) -> Iterator[int]:
    """Run ``batches`` of images (B, 3, H, W) through the float arithmetic of ``gm``; yield the number of images seen so
    far.

    When the last batch is done the quantizers have their parameters, observers are off and fake quantization is on.

    Raises:
        Problem: there was no image, or a site saw NaN or infinity.
    """
    training, seen = gm.training, 0
    gm.eval()
    gm.apply(enable_observer)
    gm.apply(disable_fake_quant)
    try:
        for batch in batches:
            gm(batch)
            seen += len(batch)
            yield seen
        if not seen:
            raise Problem("calibration", "saw no image", expected="at least one readable image")
        for fake in quantizers(gm).values():
            fake.update_qparams()
        for layer in gm.modules():
            if isinstance(layer, (QATConv2d, QATLinear)):
                layer.calibrate_weight()
    finally:
        gm.apply(disable_observer)
        gm.apply(enable_fake_quant)
        gm.train(training)
