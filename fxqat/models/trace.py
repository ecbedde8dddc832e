"""Tracing Ultralytics' models without editing them: the quirks live here."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from torch import fx, nn

from fxqat.errors import Problem
from fxqat.graph.info import note
from fxqat.graph.site import assign_sites, covers, module_of, site_of
from fxqat.models.families import adapt
from fxqat.models.families.blocks import adapt_blocks
from fxqat.models.families.opaque import Opaque

# What the code of a layer raises on attributes that a checkpoint lacks or holds changed.
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class _CountedProxy(fx.Proxy):
    """A proxy that can be iterated over if it is the result of ``chunk`` or ``split``.

    C2f iterates over such a result, and a plain Tracer does not know its length.
    """

    def __iter__(self) -> Iterator[fx.Proxy]:
        count = _parts(self.node)
        return iter([operator.getitem(self, i) for i in range(count)]) if count else super().__iter__()

    def __len__(self) -> int:
        return _parts(self.node) or int(super().__len__())


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _CountedProxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Opaque) or super().is_leaf_module(m, module_qualified_name)


class _Layers(nn.Module):
    """Ultralytics' layer list with its routing (``f``: from which layer, ``save``: which to keep), as ``_predict_once``
    runs it."""

    def __init__(self, layers: nn.Sequential, save: list[int], where: str) -> None:
        super().__init__()
        head, source = adapt(layers[-1], where), layers[-1]
        head.f, head.i = source.f, source.i
        self.model = nn.Sequential(*layers[:-1], head)
        adapt_blocks(self.model)
        self.save = save

    def forward(self, images: Any) -> Any:
        x, kept, layers = images, list[Any](), cast(Iterable[Any], self.model)
        for layer in layers:
            if layer.f != -1:
                x = kept[layer.f] if isinstance(layer.f, int) else [x if j == -1 else kept[j] for j in layer.f]
            x = layer(x)
            kept.append(x if layer.i in self.save else None)
        return x


def trace(model: nn.Module, where: str = "model") -> fx.GraphModule:
    """The FX graph of an Ultralytics model, every node with its site, sharing the model's parameters with no
    one.

    The graph takes images (B, 3, H, W) in 0..1 and returns what the model computes in eval, bit for bit:
    (predictions, raw predictions), as its family has them.

    Raises:
        Problem: the head has no adapter, or a layer cannot be traced.
    """
    try:
        return _traced(model, where).train(model.training)
    except _FAILURES as error:
        raise Problem(
            where,
            f"cannot be traced ({(str(error).splitlines() or [type(error).__name__])[0]})",
            expected="a model whose layers are those of Ultralytics",
        ) from error


def _traced(model: Any, where: str) -> fx.GraphModule:
    layers = _Layers(copy.deepcopy(model.model), list(model.save), where)
    _part(layers)
    graph = _Tracer().trace(layers)
    assign_sites(graph)
    gm = fx.GraphModule(layers, graph, "Detector")
    _assign_roles(gm, _roles(layers, _backbone(model)))
    return gm


def _backbone(model: nn.Module) -> int:
    """How many layers the backbone has: as the architecture says, or all before the first that upsamples or joins."""
    architecture, layers = getattr(model, "yaml", None), cast(nn.Sequential, model.model)
    if isinstance(architecture, dict) and isinstance(architecture.get("backbone"), list):
        return len(architecture["backbone"])
    joins = (i for i, one in enumerate(layers) if isinstance(one, nn.Upsample) or isinstance(one.f, list))
    return next(joins, len(layers) - 1)


def _roles(layers: _Layers, backbone: int) -> dict[str, tuple[str, ...]]:
    """Globs of sites, and the roles of what they cover: the first ``backbone`` layers, those behind them, the head, and
    what adapters name within themselves."""
    last = len(layers.model) - 1
    part = {f"model.{index}.**": ("backbone" if index < backbone else "neck",) for index in range(last)}
    named = [(path, getattr(one, "roles", {})) for path, one in layers.named_modules()]
    within = {f"{path}.{glob}": names for path, globs in named for glob, names in globs.items()}
    return part | {f"model.{last}.**": ("head",)} | within


def _assign_roles(gm: fx.GraphModule, roles: Mapping[str, tuple[str, ...]]) -> None:
    """Write into each node which part it plays, in words that survive a change of scale, head index or class count."""
    first = next(node for node in gm.graph.nodes if node.op == "call_module" and isinstance(module_of(node), nn.Conv2d))
    for node in gm.graph.nodes:
        found = [role for glob, names in roles.items() if covers(glob, site_of(node)) for role in names]
        if node is first:
            found.append("first_conv")
        if found:
            note(node, roles=tuple(found))


def _part(layers: nn.Module) -> None:
    """Give every path its own module. Ultralytics uses one ``nn.SiLU`` instance at many paths, and a tracer would name
    all of its calls by the first."""
    seen: set[nn.Module] = set()
    for path, shared in list(layers.named_modules(remove_duplicate=False)):
        if shared in seen and not list(shared.parameters()):
            layers.set_submodule(path, copy.copy(shared))
        seen.add(shared)


def _parts(node: fx.Node) -> int:
    """How many tensors a node gives, where its arguments say so; 0 where they do not."""
    if node.target == "chunk":
        return int(node.args[1] if len(node.args) > 1 else node.kwargs["chunks"])  # type: ignore[arg-type]
    sizes = node.args[1] if node.target == "split" and len(node.args) > 1 else None
    return len(sizes) if isinstance(sizes, (list, tuple)) else 0
