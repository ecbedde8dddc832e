"""How the values of every quantized tensor are spread, and where its range ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxqat.graph.site import module_of
from fxqat.models.detector import Detector, cut
from fxqat.passes.quant_graph import is_quantizer, rounded_site
from fxqat.sensitivity.selective import asleep

BINS = 60
_BEYOND = 0.2  # so much of the range is shown past either end; all that lies further is counted in the last bin


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A histogram around the range of a quantizer.

    Attributes:
        counts: of each bin.
        low: where the first bin begins; it also counts what lies below.
        high: where the last bin ends; it also counts what lies above.
        first: the least value that has a code.
        last: the largest.
    """

    counts: tuple[int, ...]
    low: float
    high: float
    first: float
    last: float


@torch.no_grad()
def spreads(model: Detector, batches: Iterable[Tensor]) -> Mapping[str, Spread]:
    """The float values before each quantizer of a calibrated detector, by site, over images (B, 3, H, W) in 0..1."""
    view = cut(model.gm, 0)
    counter = _Counter(view)
    with asleep(view):
        for batch in batches:
            counter.run(batch)
    return counter.found()


class _Counter(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.counts, self.ends = dict[str, Tensor](), dict[str, tuple[float, float]]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if is_quantizer(n):
            self._count(rounded_site(n), value, module_of(n))
        return value

    def _count(self, site: str, x: Tensor, fake: Any) -> None:
        first, last = fake.qparams().span
        margin = (last - first) * _BEYOND
        self.ends[site] = (first, last)
        counts = torch.histc(x.clamp(first - margin, last + margin), BINS, first - margin, last + margin)
        self.counts[site] = self.counts.get(site, torch.zeros(BINS)) + counts

    def found(self) -> dict[str, Spread]:
        return {site: self._spread(site, counts) for site, counts in self.counts.items()}

    def _spread(self, site: str, counts: Tensor) -> Spread:
        first, last = self.ends[site]
        margin = (last - first) * _BEYOND
        whole = tuple(int(count) for count in counts)
        return Spread(counts=whole, low=first - margin, high=last + margin, first=first, last=last)
