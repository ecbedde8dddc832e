"""Mixed precision: for a set of layers in float, which tensors are integers, the cost, and the quantizers left on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fxqat.graph.site import module_of, operation, site_of
from fxqat.models.families.opaque import Opaque
from fxqat.models.image_size import ImageSize
from fxqat.passes import sites
from fxqat.passes.quant_graph import is_quantizer, quant_info
from fxqat.passes.selective import members
from fxqat.search.op_costs import Costs
from fxqat.sensitivity.policy_groups import decided
from fxqat.targets import Place, Target

_PROBE = 64
_FLOAT_BYTES = 2.0  # an operation that moves values takes about twice as long on float32 as on bytes (measured: Concat)


@dataclass(frozen=True, kw_only=True)
class Tensorish:
    """A node of the fused graph.

    Attributes:
        site: of the node.
        layer: whether it has a weight.
        place: where the target puts its output's quantizer.
        sources: sites of its inputs.
        elements: of its output at the image size.
        quantized: whether the base policy quantizes it.
        reads: whether it reads its inputs' values, not their shapes alone.
    """

    site: str
    layer: bool
    place: Place
    sources: tuple[str, ...]
    elements: int
    quantized: bool
    reads: bool


class Layout:
    """A network under a base policy, of which any set of layers may be left in float.

    Args:
        fused: with the base policy's decisions (``assign``).
        prepared: the same with quantizers.
        target: of the policy.
        imgsz: of the images.
    """

    def __init__(self, fused: fx.GraphModule, prepared: fx.GraphModule, target: Target, imgsz: ImageSize) -> None:
        sizes = _sizes(fused, imgsz)
        self.sites = sites(fused)
        self.nodes = {site_of(node): _describe(node, target, sizes) for node in fused.graph.nodes if _counts(node)}
        self.inputs = [node.site for node in self.nodes.values() if not node.sources]
        self.layers = [node.site for node in self.nodes.values() if node.layer and node.quantized]
        self.members = {node.name: (decided(node), _is_output(node)) for node in members(prepared)}
        self.readers: dict[str, list[str]] = {site: [] for site in self.nodes}
        for node in self.nodes.values():
            for source in node.sources:
                self.readers[source].append(node.site)

    def integers(self, left: Iterable[str]) -> dict[str, bool]:
        """For each site whether its output is integer with the layers ``left`` in float."""
        left, found = set(left), dict[str, bool]()
        for node in self.nodes.values():
            inputs = all(found[source] for source in node.sources)
            if node.place is Place.NONE or not node.quantized:
                found[node.site] = False
            elif node.layer:
                found[node.site] = node.site not in left
            elif not node.sources:  # images: whoever reads them in INT8 wants them quantized
                found[node.site] = any(reader not in left for reader in self.readers[node.site])
            else:
                found[node.site] = inputs
        return found

    def cost(self, left: Iterable[str], int8: Costs, plain: Costs) -> float:
        """Milliseconds of the network with the layers ``left`` in float."""
        integers, total, quantized = self.integers(left), 0.0, set[str]()
        for node in self.nodes.values():
            is_integer = integers[node.site]
            if node.layer and node.site in plain.sites and node.quantized:
                total += (int8 if is_integer else plain).sites.get(node.site, 0.0)
            elif node.quantized and node.sources:
                total += int8.sites.get(node.site, 0.0) * (1.0 if is_integer else _FLOAT_BYTES)
            total += sum(self._border(node, source, integers, quantized) for source in set(node.sources)) * int8.border
        return total

    def _border(self, node: Tensorish, source: str, integers: Mapping[str, bool], quantized: set[str]) -> int:
        """Elements that are quantized (once for all who read them) or dequantized (for each of them) on the way from
        ``source`` to ``node``."""
        if not node.reads:
            return 0
        arrives = not self.nodes[source].sources and integers[source]  # images are float when they arrive
        wanted = arrives or (integers[node.site] and not integers[source])
        fresh = wanted and source not in quantized
        if wanted:
            quantized.add(source)
        drops = integers[source] and not integers[node.site]
        return self.nodes[source].elements * (int(fresh) + int(drops))

    def awake(self, left: Iterable[str]) -> list[str]:
        """Names of the quantizers that are left: those of integer layers, and of float tensors that integers read."""
        integers = self.integers(left)
        return [
            name
            for name, (site, is_output) in self.members.items()
            if integers.get(site, False) or (is_output and self._read(site, integers))
        ]

    def _read(self, site: str, integers: Mapping[str, bool]) -> bool:
        """Whether an integer layer reads the tensor, at once or past operations that move values."""
        return any(
            integers[reader] if self.nodes[reader].layer else self._read(reader, integers)
            for reader in self.readers.get(site, ())
        )

    def follow(self, left: Iterable[str]) -> list[str]:
        """Sites that are float because the layers ``left`` are, those among them, in the order of the computation."""
        base, now = self.integers(()), self.integers(left)
        return [site for site in self.nodes if base[site] and not now[site]]


def _counts(node: fx.Node) -> bool:
    return node.op not in {"output", "get_attr"}


def _describe(node: fx.Node, target: Target, sizes: Mapping[str, int]) -> Tensorish:
    op = "input" if node.op == "placeholder" else operation(node)
    return Tensorish(
        site=site_of(node),
        layer=target.has_weight(op),
        place=target.place(op, site_of(node)),
        sources=tuple(site_of(source) for source in node.all_input_nodes if _counts(source)),
        elements=sizes[node.name],
        quantized=quant_info(node).activation is not None,
        reads=_reads(node),
    )


def _reads(node: fx.Node) -> bool:
    made = module_of(node) if node.op == "call_module" else None
    return made.reads if isinstance(made, Opaque) else True


def _is_output(node: fx.Node) -> bool:
    """Whether it rounds what its site gives to others, not a value inside it."""
    if not is_quantizer(node):
        return False
    return not any(quant_info(user).decision and decided(user) == decided(node) for user in node.users)


def _sizes(gm: fx.GraphModule, imgsz: ImageSize) -> dict[str, int]:
    walk = _Sizes(gm)
    with torch.no_grad():
        walk.run(torch.zeros(1, 3, _PROBE, _PROBE))
    return {name: size * imgsz.pixels // _PROBE**2 for name, size in walk.sizes.items()}


class _Sizes(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.sizes: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        self.sizes[n.name] = value.numel() if isinstance(value, Tensor) else 0
        return value
