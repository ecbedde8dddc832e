"""Execution of a quantized graph with chosen quantizers on and the others off."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from fxqat.graph.site import module_of
from fxqat.passes.quant_graph import is_quantizer, layer_of
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.torch_ao import disable_fake_quant, disable_observer


def members(gm: fx.GraphModule) -> list[fx.Node]:
    """Every place where something is rounded, in the order of the computation: calls of fake quantizers, and layers
    with an integer weight. A quantizer that several tensors share is called once for each."""
    return [node for node in gm.graph.nodes if is_quantizer(node) or has_integer_weight(node)]


def has_integer_weight(node: fx.Node) -> bool:
    """Whether it calls a layer whose weight has a quantizer."""
    layer = layer_of(node)
    return layer is not None and layer.weight_fake_quant is not None


@contextmanager
def asleep(gm: fx.GraphModule) -> Iterator[None]:
    """Every quantizer off, in eval mode; afterwards all is as it was."""
    fakes = [module for module in gm.modules() if isinstance(module, FakeQuantize)]
    switches = [(fake.quantizing, fake.observing) for fake in fakes]
    training = gm.training
    gm.eval()
    gm.apply(disable_fake_quant)
    gm.apply(disable_observer)
    try:
        yield
    finally:
        for fake, (quantizing, observing) in zip(fakes, switches, strict=True):
            fake.enable_fake_quant(quantizing)
            fake.enable_observer(observing)
        gm.train(training)


class Selective(fx.Interpreter):
    """Runs a graph whose quantizers are ``asleep`` with those named in ``on`` awake, node by node.

    A layer's weight and bias are rounded where its own node is named, whatever happens to its input.

    Args:
        gm: with quantizers, calibrated.
        on: names of nodes among ``members``.
    """

    def __init__(self, gm: fx.GraphModule, on: Container[str]) -> None:
        super().__init__(gm)
        self.on = on

    def run_node(self, n: fx.Node) -> Any:
        """One node."""
        if n.name not in self.on:
            return super().run_node(n)
        module = module_of(n)
        arguments, _ = self.fetch_args_kwargs_from_env(n)
        return module.quantize(*arguments) if isinstance(module, FakeQuantize) else rounded(module, arguments)


def rounded(layer: Any, arguments: tuple[Any, ...]) -> Tensor:
    """A layer's output with its weight and bias rounded."""
    layer.weight_fake_quant.enable_fake_quant(True)
    try:
        output: Tensor = layer(*arguments)
    finally:
        layer.weight_fake_quant.enable_fake_quant(False)
    return output


@torch.no_grad()
def run(gm: fx.GraphModule, images: Tensor, on: Container[str]) -> Any:
    """The output for ``images`` with the quantizers in ``on``; ``gm`` must be asleep."""
    return Selective(gm, on).run(images)
