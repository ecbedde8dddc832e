"""A graph seen as a quantized network: its layers, its quantizers, and what is known of each node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from torch import fx

from fxqat.graph.info import NodeInfo, info_of, set_info
from fxqat.graph.site import module_of, operation, site_of
from fxqat.policy import Decision
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.spec import QuantSpec

# Ends the site of a quantizer: that of the tensor which it rounds stands before it.
QUANTIZED = ".quantized"


@dataclass(frozen=True, kw_only=True)
class QuantInfo(NodeInfo):
    """What is known of a node of a quantized graph.

    Attributes:
        decision: of the policy; None before it decided.
        weight: how the node's weight is quantized; None for float, or for what has no weight.
        activation: how the node's output is quantized where it is; None for float.
        preactivation: the same for what stands before the activation function of a block that a target parts.
        input: how the node's input is quantized where it is float and the weight of integers.
        quantizer: path of the fake quantizer on whose grid the node's value is, also where it stands at another node
            since the values were on the grid already (after MaxPool, Upsample, split, Concat); None for a float value.
        tensor_name: what the value is called in the graph of every target; empty for the node's site.
    """

    decision: Decision | None = None
    weight: QuantSpec | None = None
    activation: QuantSpec | None = None
    preactivation: QuantSpec | None = None
    input: QuantSpec | None = None
    quantizer: str | None = None
    tensor_name: str = ""

    def handed_on(self, rule: str) -> Self:
        """The note of a node that ``rule`` puts in this one's place; whether its value is of integers is not known."""
        return replace(super().handed_on(rule), quantizer=None)


def quant_info(node: fx.Node) -> QuantInfo:
    """The QuantInfo of ``node``; fields that no pass has set are None."""
    info = info_of(node)
    return info if isinstance(info, QuantInfo) else QuantInfo(site=info.site, roles=info.roles, rule=info.rule)


def annotate(node: fx.Node, **changes: Any) -> None:
    """Change fields of the QuantInfo of ``node``."""
    set_info(node, replace(quant_info(node), **changes))


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A convolution or linear layer: the node that calls it, and what is called."""

    node: fx.Node
    module: QATConv2d | QATLinear

    @property
    def site(self) -> str:
        """Where in the source model it comes from."""
        return site_of(self.node)

    @property
    def integer(self) -> bool:
        """Whether its weight is quantized."""
        return self.module.weight_fake_quant is not None

    @property
    def input(self) -> fx.Node:
        """What it reads."""
        return self.node.all_input_nodes[0]

    @property
    def input_scale(self) -> fx.Node | None:
        """The scale with which its bias is rounded; None where the bias stays in float."""
        scale = self.node.kwargs.get("input_scale", self.node.args[1] if len(self.node.args) > 1 else None)
        return scale if isinstance(scale, fx.Node) else None


@dataclass(frozen=True)
class QuantGraph:
    """A view of ``gm``, which may change behind it: every question is answered from the graph as it is then."""

    gm: fx.GraphModule

    def layers(self) -> tuple[Layer, ...]:
        """Every layer with a weight of its own, in the order of the computation."""
        found = ((node, layer_of(node)) for node in self.gm.graph.nodes)
        return tuple(Layer(node=node, module=module) for node, module in found if module is not None)

    def quantizers(self) -> dict[str, FakeQuantize]:
        """Every quantizer of activations by the site of the first tensor that it rounds, in the order of the
        computation."""
        found = dict[FakeQuantize, str]()
        for node in self._calls():
            found.setdefault(module_of(node), rounded_site(node))
        return {site: module for module, site in found.items()}

    def quantizers_by_path(self) -> dict[str, FakeQuantize]:
        """The same by the paths of their modules, which nodes call by name."""
        return {str(node.target): module_of(node) for node in self._calls()}

    def is_integer(self, node: fx.Node) -> bool:
        """Whether the value of ``node`` is of integers; a tuple of tensors is what it was parted from."""
        whole = node.all_input_nodes[0] if operation(node) in {"chunk", "split"} else node
        return quant_info(whole).quantizer is not None

    def tensor(self, node: fx.Node) -> str:
        """What the value of ``node`` is called in the graph of every target."""
        return quant_info(node).tensor_name or site_of(node)

    def _calls(self) -> list[fx.Node]:
        return [node for node in self.gm.graph.nodes if is_quantizer(node)]


def layer_of(node: fx.Node) -> QATConv2d | QATLinear | None:
    """The layer with a weight that ``node`` calls, or None where it does something else."""
    module = module_of(node) if node.op == "call_module" else None
    return module if isinstance(module, QATConv2d | QATLinear) else None


def is_quantizer(node: fx.Node) -> bool:
    """Whether ``node`` calls a fake quantizer."""
    return node.op == "call_module" and isinstance(module_of(node), FakeQuantize)


def rounded_site(node: fx.Node) -> str:
    """The site of the tensor that a quantizer's node rounds; any other node's own."""
    return site_of(node).removesuffix(QUANTIZED)
