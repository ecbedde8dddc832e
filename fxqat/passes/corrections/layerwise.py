"""Layer by layer execution of the quantized graph and its float reference, from which corrections learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.passes import quant_graph
from fxqat.passes.calibrate import feeds_silu

Progress = Callable[[int, int], None]
Function = Callable[[Tensor], Tensor]


def silent(done: int, total: int) -> None:
    """Show no progress."""


def identity(x: Tensor) -> Tensor:
    """The activation function of a layer that has none."""
    return x


@dataclass(frozen=True, kw_only=True)
class Images:
    """Calibration images, which can be read several times.

    Attributes:
        read: gives a fresh iterator of batches (B, 3, H, W) each time.
        total: the number of images; 0 if not known yet.
    """

    read: Callable[[], Iterable[Tensor]]
    total: int

    def spread(self, count: int) -> Iterator[Tensor]:
        """``count`` images (1, 3, H, W), evenly spread over all; all of them where there are fewer."""
        wanted = {index * self.total // count for index in range(count)}
        every = (image for batch in self.read() for image in batch)
        return (image[None] for index, image in enumerate(every) if count >= self.total or index in wanted)


@dataclass(frozen=True, kw_only=True)
class Material:
    """The inputs of a correction: images and the float reference.

    Attributes:
        images: to learn from.
        reference: the graph in float, as it was before any rounding was learned; it has the same nodes by name.
        progress: called with steps done and steps in all.
    """

    images: Images
    reference: fx.GraphModule
    progress: Progress = silent


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(quant_graph.Layer):
    """A layer and what follows it.

    Attributes:
        owned: the activation that is part of the module, or None.
        activation: the function that its output goes through, whether the module's own or apart from it.
    """

    owned: nn.Module | None
    activation: Function


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerBatch:
    """One batch at a layer.

    Attributes:
        arguments: of the layer in the quantized graph: its input, and the input's scale where that is quantized.
        quantized: its output there, before the activation.
        reference: its output in the float graph, before the activation.
    """

    arguments: tuple[Tensor, ...]
    quantized: Tensor
    reference: Tensor


def layers(gm: fx.GraphModule) -> list[Layer]:
    """Every layer with a weight, in the order of the computation."""
    return [_layer(one) for one in quant_graph.QuantGraph(gm).layers()]


def _layer(one: quant_graph.Layer) -> Layer:
    fakes = [user for user in one.node.users if quant_graph.is_quantizer(user)]
    apart = F.silu if any(map(feeds_silu, (one.node, *fakes))) else identity
    owned = one.module.activation
    return Layer(node=one.node, module=one.module, owned=owned, activation=owned or apart)


@torch.no_grad()
def lockstep(
    gm: fx.GraphModule,
    reference: fx.GraphModule,
    batches: Sequence[Tensor],
    visit: Callable[[Layer, list[LayerBatch]], list[Tensor] | None],
) -> None:
    """Run both graphs over all ``batches`` at once: every batch reaches a layer before any goes on.

    Held in memory are, for all batches, the values that later nodes still need; never more than a few layers' outputs.

    Args:
        gm: fake-quantized, in eval mode.
        reference: float, same nodes by name, in eval mode.
        batches: images (B, 3, H, W).
        visit: called at each layer with one Seen a batch, the activations taken out of the layers' modules; where it
            changes the layer it returns the outputs anew, before the activation, and ``gm`` goes on with those.
    """
    found = layers(gm)
    with _bare(found), _bare(layers(reference)):
        walks = [(_Walk(gm, batch), _Walk(reference, batch)) for batch in batches]
        for layer in found:
            seen = [_see(quantized, real, layer.node.name) for quantized, real in walks]
            outputs = visit(layer, seen) or [one.quantized for one in seen]
            for (quantized, real), output, one in zip(walks, outputs, seen, strict=True):
                quantized.leave(layer, output)
                real.leave(layer, one.reference)


def beside_channels(values: Tensor, x: Tensor) -> Tensor:
    """``values`` [C] in a shape that broadcasts over ``x``: (B, C, H, W), or (..., C) for a linear layer's output."""
    return values.view(1, -1, 1, 1) if x.dim() == 4 else values


class _Walk(fx.Interpreter):
    """One batch on its way through a graph; a value leaves memory with its last use."""

    last: fx.Node

    def __init__(self, gm: fx.GraphModule, batch: Tensor) -> None:
        super().__init__(gm)
        self.args_iter = iter((batch,))
        self.pending = iter(gm.graph.nodes)

    def until(self, name: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Run all nodes up to the layer called ``name``; return its arguments and output."""
        for node in self.pending:
            arguments = self.fetch_args_kwargs_from_env(node)[0] if node.name == name else ()
            self.env[node] = self.run_node(node)
            for dead in self.user_to_last_uses.get(node, ()):
                self.env.pop(dead, None)
            if node.name == name:
                self.last = node
                return tuple(arguments), self.env[node]
        raise LookupError(name)

    def leave(self, layer: Layer, output: Tensor) -> None:
        """Go on with ``output``, through the activation that belongs to the layer's module."""
        self.env[self.last] = output if layer.owned is None else layer.owned(output)


def _see(quantized: _Walk, real: _Walk, name: str) -> LayerBatch:
    arguments, output = quantized.until(name)
    return LayerBatch(arguments=arguments, quantized=output, reference=real.until(name)[1])


@contextmanager
def _bare(found: Sequence[Layer]) -> Iterator[None]:
    """Take the activations out of the layers' modules for a while."""
    try:
        for layer in found:
            layer.module.activation = None
        yield
    finally:
        for layer in found:
            layer.module.activation = layer.owned
