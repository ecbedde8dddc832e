"""Three questions for every change to a graph: is its text the golden, are its numbers equal, is a second run idle?"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxqat.graph.pipeline import Pass, PassReport, Stage
from fxqat.graph.rewrite import Rewrites, Rule, rewrite
from fxqat.graph.site import assign_sites
from fxqat.graph.text import text

Change = Callable[[fx.GraphModule], Any]


def traced(root: nn.Module) -> fx.GraphModule:
    """``root`` as a graph with sites, in eval mode."""
    graph = fx.Tracer().trace(root.eval())
    assign_sites(graph)
    return fx.GraphModule(root, graph).eval()


def applying(*rules: Rule) -> Change:
    """The change that ``rules`` make."""
    return lambda gm: rewrite(gm, rules)


def ask(gm: fx.GraphModule, change: Change, *inputs: Tensor, within: float, golden: Callable[[str], str]) -> Any:
    """Apply ``change`` to a copy of ``gm`` and ask; return the changed copy and what the change returned.

    Args:
        gm: stays as it is.
        change: what is asked about; in place.
        inputs: for both graphs.
        within: the largest absolute difference of any output; 0 asks for equality bit for bit.
        golden: gives the text that is expected, masked.
    """
    changed = copy.deepcopy(gm)
    said = change(changed)
    changed.graph.lint()
    first = text(changed.graph)
    says = masked(first)
    assert says == golden(says)
    assert distance(gm(*inputs), changed(*inputs)) <= within
    again = change(changed)
    assert text(changed.graph) == first, "a second run changed the graph again"
    if isinstance(again, Rewrites):
        assert again.applied == ()
    return changed, said


def distance(a: Any, b: Any) -> float:
    """The largest absolute difference between two nested structures of tensors of one shape."""
    if isinstance(a, Tensor):
        assert a.shape == b.shape
        return float((a - b).detach().abs().max()) if a.numel() else 0.0
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    assert len(a) == len(b)
    return max(distance(one, other) for one, other in zip(a, b, strict=True))


class Named(Pass):
    """A pass made of a function, for tests of pipelines."""

    def __init__(self, name: str, change: Change, gives: Stage | None = None) -> None:
        self._name, self._change, self._gives = name, change, gives

    @property
    def name(self) -> str:
        return self._name

    @property
    def gives(self) -> Stage | None:
        return self._gives

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        return PassReport(says=str(self._change(gm) or ""))


class Residual(nn.Module):
    """conv, bn, SiLU, add with the input: the smallest graph with a fork."""

    def __init__(self, channels: int = 4, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3)
        self.act = activation or nn.SiLU()
        nn.init.uniform_(self.bn.running_mean, -1, 1)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x))) + x


def noise(*shape: int) -> Tensor:
    """Normal noise, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def masked(words: str) -> str:
    """A graph's text without the numbers that data gave: scales and zero points."""
    codes = re.sub(r"(quantize_per_tensor\(\S+), [\d.e+-]+, -?\d+,", r"\1, SCALE, ZERO,", words)
    return re.sub(r"scale=[\d.e+-]+, zero_point=-?\d+", "scale=SCALE, zero_point=ZERO", codes)
