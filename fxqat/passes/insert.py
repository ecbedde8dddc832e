"""The pass insert: fake quantizers where the target's integer kernels begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import networkx as nx
from torch import fx

from fxqat.errors import Problem
from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.graph.rewrite import Rule, rewrite
from fxqat.graph.site import module_of, operation, set_site, site_of
from fxqat.passes.quant_graph import QUANTIZED, annotate, is_quantizer, quant_info
from fxqat.passes.stages import ASSIGNED, qat
from fxqat.quant.fake_quantize import make_fake_quantize
from fxqat.quant.spec import QuantSpec
from fxqat.targets import Place, Target

QUANTIZERS = "quantizer"


@dataclass(frozen=True, kw_only=True)
class Insert(TextPass):
    """Apply the target's rewrite rules, then insert one fake quantizer for each group of tensors that share a scale.

    Afterwards the QuantInfo of every quantized node holds the path of its quantizer.
    """

    target: Target
    rules: tuple[Rule, ...]
    name: str = "insert"
    requires: Stage | None = ASSIGNED

    @property
    def gives(self) -> Stage:
        """The QAT stage of the target."""
        return qat(self.target)

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Insert the quantizers in place."""
        done = rewrite(gm, self.rules)
        groups = scale_groups(gm, self.target)
        for group in groups:
            _quantize_group(gm, group, self.target)
        layers = [node for node in gm.graph.nodes if quant_info(node).weight is not None and node.op == "call_module"]
        for node in layers:
            _quantize_layer(gm, node, self.target)
        gm.recompile()
        shared = sum(len(group) > 1 for group in groups)
        says = f"{len(groups)} quantizers, {shared} of them shared; {len(layers)} integer weights"
        return PassReport(
            says=says, rewrites=done, figures={"groups": [[site_of(node) for node in group] for group in groups]}
        )


def scale_groups(gm: fx.GraphModule, target: Target) -> list[list[fx.Node]]:
    """The quantized tensors, grouped by the scale they share.

    The inputs and the output of a Concat share one, and so do input and output of an operation that only moves values.
    Groups and their members are in the order of the computation.
    """
    links: nx.Graph[fx.Node] = nx.Graph()
    wanted = _wanted(gm, target)
    for node in gm.graph.nodes:
        sources = _sources(node, links, target) if node in wanted else None
        if sources is not None:
            links.add_node(node)
            links.add_edges_from((source, node) for source in sources)
    order = {node: index for index, node in enumerate(gm.graph.nodes)}
    groups = [sorted(component, key=order.__getitem__) for component in nx.connected_components(links)]
    return sorted(groups, key=lambda group: order[group[0]])


def _wanted(gm: fx.GraphModule, target: Target) -> set[fx.Node]:
    """The nodes whose values are quantized: those that an integer kernel reads, directly or through operations that
    only move values; all nodes where the target names no readers."""
    if target.readers is None:
        return set(gm.graph.nodes)
    found = set[fx.Node]()
    for node in reversed(gm.graph.nodes):
        read = any(_reads_integers(user, target) or (user in found and _moves(user, target)) for user in node.users)
        if read and quant_info(node).activation is not None:
            found.add(node)
    return found


def _reads_integers(node: fx.Node, target: Target) -> bool:
    return _op(node) in (target.readers or ()) and quant_info(node).weight is not None


def _moves(node: fx.Node, target: Target) -> bool:
    return target.place(_op(node), site_of(node)) in {Place.SAME, Place.SHARED}


def _sources(node: fx.Node, integers: nx.Graph[fx.Node], target: Target) -> list[fx.Node] | None:
    """The inputs whose scale the output of ``node`` must share; empty if it has its own scale, None if it is float."""
    if quant_info(node).activation is None or node.op in {"output", "get_attr"}:
        return None
    place = target.place(_op(node), site_of(node))
    if place is Place.OWN:
        return []
    inputs = node.all_input_nodes
    return inputs if place is not Place.NONE and all(one in integers for one in inputs) else None


def _quantize_group(gm: fx.GraphModule, group: list[fx.Node], target: Target) -> None:
    owners = [node for node in group if target.place(_op(node), site_of(node)) is Place.OWN]
    spec = _common_spec(owners, target)
    path = _add_quantizer(gm, spec, site_of(owners[0]))
    for node in group:
        if _op(node) not in {"chunk", "split"}:  # a tuple of tensors; its items are members themselves
            annotate(node, quantizer=path)
    for node in owners:
        _quantize_after(gm, node, path)


def _quantize_after(gm: fx.GraphModule, node: fx.Node, path: str) -> None:
    with gm.graph.inserting_after(node):
        fake = gm.graph.call_module(path, (node,))
    node.replace_all_uses_with(fake, delete_user_cb=lambda user: user is not fake)
    _describe(fake, node, f"{site_of(node)}{QUANTIZED}", path)


def _quantize_layer(gm: fx.GraphModule, node: fx.Node, target: Target) -> None:
    """Quantize the weight. With an integer bias, also pass the scale of the input to the layer. A float input gets a
    quantizer."""
    info = quant_info(node)
    module_of(node).quantize_weight(info.weight, site_of(node), pair_orders=target.pair_orders, calibrate=False)
    source = node.all_input_nodes[0]
    if quant_info(source).quantizer is None:
        source = _quantized_input(gm, source, node)
        node.args = (source,)
    if not target.integer_bias:
        return
    path = quant_info(source).quantizer
    with gm.graph.inserting_before(node):
        scale = gm.graph.get_attr(f"{path}.scale")
    set_site(scale, f"{site_of(node)}.input_scale")
    node.args = (source, scale)


def _quantized_input(gm: fx.GraphModule, source: fx.Node, node: fx.Node) -> fx.Node:
    """``source`` quantized for ``node``; an existing quantizer with the same spec is reused, so that the runtime
    computes the integers once."""
    info = quant_info(node)
    spec = info.input
    assert spec is not None, "assign gives a layer with an integer weight the spec of its input"
    for user in source.users:
        if is_quantizer(user) and module_of(user).spec == spec:
            return user
    path = _add_quantizer(gm, spec, f"{site_of(node)}.input")
    with gm.graph.inserting_before(node):
        fake = gm.graph.call_module(path, (source,))
    _describe(fake, node, f"{site_of(node)}.input{QUANTIZED}", path)
    return fake


def _add_quantizer(gm: fx.GraphModule, spec: QuantSpec, site: str) -> str:
    path = f"{QUANTIZERS}.{site.replace('.', '_')}"
    fake = make_fake_quantize(spec, site)
    fake.train(gm.training)
    gm.add_submodule(path, fake)
    return path


def _describe(fake: fx.Node, origin: fx.Node, site: str, path: str) -> None:
    info = quant_info(origin)
    fake.meta.update({key: origin.meta[key] for key in ("nn_module_stack",) if key in origin.meta})
    annotate(fake, roles=info.roles, decision=info.decision, quantizer=path)
    set_site(fake, site)


def _common_spec(owners: list[fx.Node], target: Target) -> QuantSpec:
    specs = {site_of(node): _spec(node, target) for node in owners}
    first_site, first = next(iter(specs.items()))
    for site, spec in specs.items():
        if str(spec) != str(first):
            raise Problem(
                site,
                f"is {spec}, but shares its scale with {first_site}, which is {first}",
                expected="one spec for all that a Concat joins",
                remedy="give both sites one rule in the policy",
            )
    return first


def _spec(node: fx.Node, target: Target) -> QuantSpec:
    spec = quant_info(node).activation
    assert spec is not None, "what is quantized was assigned a spec"
    known: Mapping[str, tuple[float, float]] = target.fixed
    if _op(node) not in known:
        return spec
    return replace(spec.ranged(fixed=known[_op(node)]), scale="fixed")


def _op(node: fx.Node) -> str:
    return "input" if node.op == "placeholder" else operation(node)
