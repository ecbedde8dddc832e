"""Cross-layer equalization: move scale factors of channels from one layer's weight to the next layer's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.graph.match import NoMatch
from fxqat.graph.pipeline import PassReport
from fxqat.graph.rewrite import NearMiss, Rewrites, RuleMatch
from fxqat.graph.site import module_of, operation, site_of
from fxqat.passes.corrections.layerwise import Layer, Material, layers
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d

_HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity)
# They give the maximum or a copy of values of one channel, so a positive factor can be moved through them.
_CHANNELWISE = (nn.MaxPool2d, nn.Upsample, *_HOMOGENEOUS)
# A channel that needs a factor above 2**8 is practically zero, and exact equalization would amplify its noise.
_LARGEST_FACTOR = 2.0**8


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two layers with only channel-wise functions between them that obey ``f(s * x) = s * f(x)`` for s > 0."""

    first: Layer
    second: Layer


@dataclass(frozen=True, kw_only=True)
class Equalize:
    """Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1); the float output does not change::

        s_i = sqrt(r1_i / r2_i)     W1[i] /= s_i,  b1[i] /= s_i     W2[:, i] *= s_i

    with ``r1_i`` the largest magnitude of channel i among the first weight's outputs and ``r2_i`` among the second's
    inputs, until no factor is further than ``tolerance`` from 1. The first layer is scaled through its batch norm's
    gamma and beta where it has one.

    SiLU is not positively homogeneous, so in YOLOv8 as Ultralytics ships it there is nothing to equalize; models
    trained with ``activation: nn.ReLU()`` have pairs within their bottlenecks and heads. A tensor with several uses
    (chunk, Add, Concat) is left alone.

    Args:
        rounds: at most so many sweeps over all pairs.
        tolerance: when to stop before.
    """

    rounds: int = 20
    tolerance: float = 0.01
    name: str = "equalize"
    before_ranges: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds: {self.rounds!r} is not legal, expected 1 or more")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: {self.tolerance!r} is not legal, expected more than 0")

    def __call__(self, gm: fx.GraphModule, material: Material | None = None) -> PassReport:
        """Equalize; images are not needed."""
        pairs, missed = find_pairs(gm)
        applied = tuple(RuleMatch(rule=self.name, site=pair.first.site) for pair in pairs)
        rewrites = Rewrites(applied=applied, missed=tuple(missed))
        if not pairs:
            return PassReport(says=f"nothing to equalize: {_reasons(missed)}", rewrites=rewrites)
        rounds = next((turn for turn in range(1, self.rounds + 1) if _sweep(pairs) <= self.tolerance), self.rounds)
        for pair in pairs:
            pair.first.module.calibrate_weight()
            pair.second.module.calibrate_weight()
        return PassReport(
            says=f"{len(pairs)} pairs equalized in {rounds} rounds; {_reasons(missed)}", rewrites=rewrites
        )


def find_pairs(gm: fx.GraphModule) -> tuple[list[Pair], list[NearMiss]]:
    """Every pair that can be equalized, and for every other layer why it does not begin one."""
    every = layers(gm)
    by_node = {layer.node: layer for layer in every}
    pairs, missed = [], []
    for layer in every:
        try:
            pairs.append(Pair(first=layer, second=_second(layer, by_node)))
        except NoMatch as miss:
            where = site_of(miss.node)
            missed.append(NearMiss(rule="equalize", site=layer.site, where=where, reason=miss.reason, depth=1))
    return pairs, missed


def _second(first: Layer, by_node: dict[fx.Node, Layer]) -> Layer:
    """The layer that alone receives ``first``'s output, scaled as it is."""
    if first.module.bn is not None and not first.module.bn.affine:
        raise NoMatch("its batch norm has no gamma", first.node)
    if first.owned is not None and not isinstance(first.owned, _HOMOGENEOUS):
        raise NoMatch(f"{type(first.owned).__name__} is not positively homogeneous", first.node)
    if first.activation is F.silu:
        raise NoMatch("SiLU is not positively homogeneous", first.node)
    node = first.node
    while True:
        node = _only_user(node)
        if node in by_node:
            return _checked(first, by_node[node])
        if node.op != "call_module" or not isinstance(module_of(node), (FakeQuantize, *_CHANNELWISE)):
            raise NoMatch(f"{operation(node)} is no function of one channel", node)


def _checked(first: Layer, second: Layer) -> Layer:
    if not isinstance(first.module, QATConv2d) or not isinstance(second.module, QATConv2d):
        raise NoMatch("one of the layers is linear", second.node)
    return second


def _only_user(node: fx.Node) -> fx.Node:
    if len(node.users) != 1:
        raise NoMatch(f"its value has {len(node.users)} uses", node)
    return next(iter(node.users))


@torch.no_grad()
def _sweep(pairs: list[Pair]) -> float:
    """Equalize each pair once; return the largest ``|log2 s|``."""
    return max(_equalize(pair.first.module, pair.second.module) for pair in pairs)


def _equalize(first: Any, second: Any) -> float:
    given = first.folded()[0].abs().flatten(1).amax(1)
    taken = _by_input(second, second.folded()[0]).abs().amax((1, 3)).flatten()
    alive = (given > 0) & (taken > 0)
    wanted = (given / taken).sqrt().clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    factor = torch.where(alive, wanted, 1.0)
    scaled = first if first.bn is None else first.bn
    for values in (scaled.weight, scaled.bias):
        if values is not None:
            values.data /= factor.view(-1, *[1] * (values.dim() - 1))
    weight = second.weight.data
    weight.copy_((_by_input(second, weight) * factor.view(second.groups, 1, -1, 1)).view_as(weight))
    return float(factor.log2().abs().max())


def _by_input(conv: QATConv2d, weight: Tensor) -> Tensor:
    """A convolution's weight as [groups, outputs, inputs, kernel], outputs and inputs counted within a group."""
    return weight.reshape(conv.groups, weight.shape[0] // conv.groups, weight.shape[1], -1)


def _reasons(missed: list[NearMiss]) -> str:
    counts = Counter(miss.reason for miss in missed)
    return "; ".join(f"{count} layers refused: {reason}" for reason, count in counts.most_common())
