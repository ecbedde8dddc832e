"""observe: show real images to the observers, then give every quantizer its scale and zero point."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, fx

from fxqat.errors import Problem
from fxqat.graph.site import nearest
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.spec import METHODS
from fxqat.quant.torch_ao import disable_fake_quant, disable_observer, enable_fake_quant, enable_observer


def use_method(gm: fx.GraphModule, method: str) -> None:
    """Let every activation quantizer choose its range by ``method``, whatever the policy says; ranges that a policy or
    the target gives stay.

    Before a SiLU the range is chosen by the error after it with "mse", the only method that can.

    Raises:
        Problem: there is no such method.
    """
    if method not in METHODS:
        raise Problem(
            "--method",
            f"unknown method {method!r}",
            expected=f"one of: {', '.join(METHODS)}",
            remedy=nearest(method, METHODS),
        )
    silu = before_silu(gm)
    for fake in QuantGraph(gm).quantizers().values():
        if fake.spec.fixed is None:
            through = "silu" if fake in silu else fake.spec.through
            searched = {"through": through, "clip": fake.spec.clip} if method == "mse" else {}
            fake.spec = fake.spec.ranged(observer="histogram", method=method, **searched)
            fake.renew_observer()


def before_silu(gm: fx.GraphModule) -> set[FakeQuantize]:
    """The quantizers of what a SiLU is applied to."""
    gated = {str(node.target) for node in gm.graph.nodes if feeds_silu(node)}
    return {fake for path, fake in QuantGraph(gm).quantizers_by_path().items() if path in gated}


def feeds_silu(node: fx.Node) -> bool:
    """Whether ``node``'s value is multiplied with its own sigmoid: SiLU as integer kernels want it."""
    gates = [user for user in node.users if user.target is torch.sigmoid]
    gated = {user for gate in gates for one in (gate, *gate.users) for user in one.users}
    return any(user.target is operator.mul and user in gated for user in node.users)


@torch.no_grad()
def observe(gm: fx.GraphModule, batches: Iterable[Tensor]) -> Iterator[int]:
    """Run ``batches`` of images (B, 3, H, W) through the float arithmetic of ``gm``; yield the number of images seen so
    far.

    What was observed before counts no more. When the last batch is done the quantizers have their parameters, observers
    are off and fake quantization is on; where it is refused, the parameters are those of before.

    Raises:
        Problem: there was no image, or a site saw NaN or infinity.
    """
    training, seen = gm.training, 0
    gm.eval()
    fakes = list(QuantGraph(gm).quantizers().values())
    for fake in fakes:
        fake.renew_observer()
    gm.apply(enable_observer)
    gm.apply(disable_fake_quant)
    try:
        for batch in batches:
            gm(batch)
            seen += len(batch)
            yield seen
        if not seen:
            raise Problem("calibration", "saw no image", expected="at least one readable image")
        chosen = [fake.observed_qparams() for fake in fakes]
        for fake, qparams in zip(fakes, chosen, strict=True):
            fake.load_qparams(qparams)
        for layer in QuantGraph(gm).layers():
            layer.module.calibrate_weight()
    finally:
        gm.apply(disable_observer)
        gm.apply(enable_fake_quant)
        gm.train(training)
