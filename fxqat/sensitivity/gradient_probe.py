"""The error that each quantizer causes alone, at its tensor and at the detector's output, in one pass over images.

The error at the output follows from gradients. Let d_i be the error of quantizer i at its tensor x_i in the float
network, and r a random direction of the output y (see fxqat.models.links). ``z_i = d_i . (dy/dx_i)' r`` is the change
of the output along r, to first order. One backward pass gives all z_i at once. ``E[z_i^2] / 2`` is the divergence that
quantizer i causes alone, ``E[(sum of z_i)^2] / 2`` that of any set of them, correlations included. This is Hutchinson's
estimator of ``|J d|^2`` in the Fisher metric.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from fxqat.errors import Problem
from fxqat.graph.site import module_of
from fxqat.models.detector import Detector, cut
from fxqat.models.family import RawOutput
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.models.links import directions, divergence
from fxqat.passes.calibrate import feeds_silu
from fxqat.passes.quant_graph import is_quantizer, layer_of
from fxqat.passes.selective import Selective, asleep, members, rounded
from fxqat.sensitivity.error_statistics import Tally


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The distance of a quantized network's output from the float one's, mean over images.

    Attributes:
        divergence: nats, see ``fxqat.models.links``.
        sqnr: of each raw output, dB, by its title.
        main: the title of the output that says what is in an image.
    """

    divergence: float
    sqnr: Mapping[str, float]
    main: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """What a pass found.

    Attributes:
        nodes: every member, and every layer in float, in the order of the computation.
        names: of the members.
        samples: z, float64, shape (images * probes, members).
        tallies: each member's error in the float network, by node name: of a layer, at its output.
        accumulated: each node's value with everything on against the float one.
        output: the whole network's, measured.
        images: how many.
        imgsz: of the last one.
    """

    nodes: tuple[fx.Node, ...]
    names: tuple[str, ...]
    samples: np.ndarray
    tallies: dict[str, Tally]
    accumulated: dict[str, Tally]
    output: Gap
    images: int
    imgsz: ImageSize

    def alone(self) -> dict[str, float]:
        """The divergence that each member causes alone, nats, by node name."""
        values = (self.samples**2).mean(0) / 2
        return dict(zip(self.names, values.tolist(), strict=True))

    def together(self, names: Iterable[str]) -> float:
        """The divergence that several members cause together, nats."""
        chosen = set(names)
        columns = [index for index, name in enumerate(self.names) if name in chosen]
        return float((self.samples[:, columns].sum(1) ** 2).mean() / 2)

    def input_scale(self, node: fx.Node) -> Tensor | None:
        """The scale of an integer layer's input, where its bias is rounded with it."""
        owner = node.graph.owning_module
        if owner is None or len(node.args) < 2:
            return None
        path, _, name = str(node.args[1].target).rpartition(".")  # type: ignore[union-attr]
        scale: Tensor = getattr(owner.get_submodule(path), name)
        return scale.detach()


def probe(
    model: Detector,
    batches: Iterable[Tensor],
    *,
    probes: int = 2,
    seed: int = 0,
    accumulate: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> ProbeResult:
    """Show images (B, 3, H, W) one by one to a calibrated detector.

    Args:
        model: stage ``qat``.
        batches: images in 0..1.
        probes: random directions an image.
        seed: of the directions.
        accumulate: compare the quantized network's tensors too; without, ``accumulated`` stays empty.
        progress: called with images done.

    Raises:
        Problem: there was no image.
    """
    view = cut(model.gm, 1)
    chosen = members(view)
    watched = tuple(node for node in view.graph.nodes if is_quantizer(node) or layer_of(node))
    pass_ = _Pass(view, model.compared, chosen, watched, torch.Generator().manual_seed(seed))
    frozen = [parameter for parameter in view.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with asleep(view):
            for image in (image[None] for batch in batches for image in batch):
                pass_.show(image, probes, accumulate)
                progress(len(pass_.gaps))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return pass_.result()


class _Pass:
    """State of a pass over images."""

    def __init__(
        self,
        view: fx.GraphModule,
        outputs: Sequence[RawOutput],
        chosen: Sequence[fx.Node],
        watched: tuple[fx.Node, ...],
        generator: torch.Generator,
    ) -> None:
        self.view, self.outputs, self.watched, self.generator = view, outputs, watched, generator
        self.names = tuple(node.name for node in chosen)
        self.tallies = {name: Tally() for name in self.names}
        self.accumulated = {node.name: Tally() for node in watched}
        self.logits = {one.title: Tally() for one in outputs}
        self.samples: list[list[float]] = []
        self.gaps: list[float] = []
        self.imgsz = DEFAULT_SIZE

    def show(self, image: Tensor, probes: int, accumulate: bool) -> None:
        self.imgsz = ImageSize.of(image.shape[-2:])
        walk = _FloatWalk(self.view, self.tallies)
        with torch.enable_grad():
            raw = walk.run(image.clone().requires_grad_(True))
        walk.env.clear()  # values would hold the graph of gradients, whose hooks hold errors
        for index in range(probes):
            ends = directions(self.outputs, raw, self.generator)
            walk.felt.clear()
            torch.autograd.backward([one.of(raw) for one in self.outputs], ends, retain_graph=index + 1 < probes)
            self.samples.append([walk.felt.get(name, 0.0) for name in self.names])
        plain = tree_map(torch.Tensor.detach, raw)
        del raw
        self.gaps.append(self._quantized(walk.values if accumulate else {}, plain, image))

    @torch.no_grad()
    def _quantized(self, values: dict[str, Tensor], plain: Any, image: Tensor) -> float:
        raw = _Compare(self.view, frozenset(self.names), values, self.accumulated).run(image)
        for one in self.outputs:
            self.logits[one.title].add(one.of(plain), one.of(raw) - one.of(plain))
        return float(divergence(self.outputs, plain, raw))

    def result(self) -> ProbeResult:
        if not self.gaps:
            raise Problem("analysis", "saw no image", expected="at least one readable image")
        output = Gap(
            divergence=float(np.mean(self.gaps)),
            sqnr={title: tally.sqnr for title, tally in self.logits.items()},
            main=next(one.title for one in self.outputs if one.confidence),
        )
        return ProbeResult(
            nodes=self.watched,
            names=self.names,
            samples=np.array(self.samples, dtype=np.float64).reshape(len(self.samples), len(self.names)),
            tallies=self.tallies,
            accumulated=self.accumulated,
            output=output,
            images=len(self.gaps),
            imgsz=self.imgsz,
        )


class _FloatWalk(fx.Interpreter):
    """The float network with gradients; every member's error is measured, and felt when gradients come back.

    Attributes:
        felt: z by node name, of the backward pass that ran last.
        values: the float values of members and float layers, by node name.
    """

    def __init__(self, view: fx.GraphModule, tallies: dict[str, Tally]) -> None:
        super().__init__(view)
        self.tallies, self.felt, self.values = tallies, dict[str, float](), dict[str, Tensor]()
        self.later: dict[fx.Node, tuple[str, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.tallies:
            value = self._member(n, value)
        elif n in self.later:
            value = self._listen(*self.later.pop(n), value)
        if is_quantizer(n) or layer_of(n):
            self.values[n.name] = value.detach()
        return value

    def _member(self, n: fx.Node, value: Tensor) -> Tensor:
        x = value.detach()
        error, product = self._error(n, x), _silu_of(n)
        if product is None:
            return self._listen(n.name, error, value)
        # Far from linear: a range before SiLU is cut where the function is flat. So the error is felt after it.
        self.later[product] = n.name, F.silu(x + error) - F.silu(x)
        return value

    @torch.no_grad()
    def _error(self, n: fx.Node, x: Tensor) -> Tensor:
        module, tally = module_of(n), self.tallies[n.name]
        if is_quantizer(n):
            tally.add_range(x, module.qparams())
            error = module.quantize(x) - x
        else:
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            error = rounded(module, tuple(argument.detach() for argument in arguments)) - x
        tally.add(x, error)
        return error

    def _listen(self, name: str, error: Tensor, value: Tensor) -> Tensor:
        # an alias of its own: gradients that reach the tensor by a way past this quantizer are not its doing
        alias = value.view_as(value)
        felt, kept = self.felt, error.bfloat16()  # half the memory; rounds by 2**-9 in a sum of thousands

        def feel(gradient: Tensor) -> None:
            felt[name] = float(gradient.reshape(-1) @ kept.reshape(-1).float())

        alias.register_hook(feel)
        return alias


def _silu_of(n: fx.Node) -> fx.Node | None:
    """The product of ``n``'s value with its sigmoid, where that is all it is for."""
    if not is_quantizer(n) or not feeds_silu(n):
        return None
    products = [user for user in n.users if user.target is operator.mul]
    return products[0] if len(products) == 1 and len(n.users) == 2 else None


class _Compare(Selective):
    """The quantized network, its tensors compared with the float ones."""

    def __init__(
        self, view: fx.GraphModule, on: frozenset[str], values: dict[str, Tensor], tallies: dict[str, Tally]
    ) -> None:
        super().__init__(view, on)
        self.values, self.tallies = values, tallies

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.values:
            plain = self.values.pop(n.name)
            self.tallies[n.name].add(plain, value - plain)
        return value
