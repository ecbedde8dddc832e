"""Nodes in layers: every edge points down, few cross, and what belongs together stands in line.

After Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical system structures": layers by
the longest path, dummies where an edge spans several, order by barycentres, then places by least squares.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

Key = Hashable
_SWEEPS = 12
_DUMMY = (6.0, 0.0)
_STRAIGHT = 0.25  # of a node's own wish: where the two quarrel, a long edge bends around what stands in line


@dataclass(frozen=True, kw_only=True)
class GraphLayout:
    """Where everything is, in units of the sizes given.

    Attributes:
        centres: (x, y) of each node.
        routes: the points that each edge passes, its ends left out.
        width: of all.
        height: of all.
    """

    centres: Mapping[Any, tuple[float, float]]
    routes: Mapping[tuple[Any, Any], tuple[tuple[float, float], ...]]
    width: float
    height: float


def place(
    graph: nx.DiGraph[Any], sizes: Mapping[Any, tuple[float, float]], *, across: float, down: float
) -> GraphLayout:
    """Lay out an acyclic graph.

    Args:
        graph: nodes in an order that is kept where nothing speaks against it.
        sizes: (width, height) of each node.
        across: least gap between neighbours in a layer.
        down: gap between layers.
    """
    if not graph:
        return GraphLayout(centres={}, routes={}, width=0.0, height=0.0)
    proper, chains = _proper(graph, _layers(graph))
    rows = _ordered(proper, _rows(proper))
    widths = {key: sizes.get(key, _DUMMY)[0] for key in proper}
    xs = _columns(proper, rows, widths, across)
    ys, height = _heights(rows, sizes, down)
    left = min(xs[key] - widths[key] / 2 for key in proper)
    centres = {key: (xs[key] - left, ys[proper.nodes[key]["layer"]]) for key in proper}
    right = max(centres[key][0] + widths[key] / 2 for key in proper)
    return GraphLayout(
        centres={key: centres[key] for key in graph},
        routes={edge: tuple(centres[key] for key in chain) for edge, chain in chains.items()},
        width=right,
        height=height,
    )


def _layers(graph: nx.DiGraph[Any]) -> dict[Any, int]:
    """The longest path from a source; sources themselves go as far down as they can."""
    layers = {key: index for index, keys in enumerate(nx.topological_generations(graph)) for key in keys}
    for key in graph:
        if graph.in_degree(key) == 0 and graph.out_degree(key):
            layers[key] = min(layers[after] for after in graph.successors(key)) - 1
    return layers


def _proper(graph: nx.DiGraph[Any], layers: Mapping[Any, int]) -> tuple[nx.DiGraph[Any], dict[Any, list[Any]]]:
    """The graph with a dummy in every layer that an edge passes, and the dummies of each edge."""
    proper: nx.DiGraph[Any] = nx.DiGraph()
    for key in graph:
        proper.add_node(key, layer=layers[key], weight=1.0)
    chains = dict[Any, list[Any]]()
    for start, end in graph.edges:
        chain = [("dummy", start, end, layer) for layer in range(layers[start] + 1, layers[end])]
        for dummy in chain:
            proper.add_node(dummy, layer=dummy[3], weight=_STRAIGHT)
        nx.add_path(proper, [start, *chain, end])
        chains[start, end] = chain
    return proper, chains


def _rows(proper: nx.DiGraph[Any]) -> list[list[Any]]:
    rows = dict[int, list[Any]]()
    for key, data in proper.nodes(data=True):
        rows.setdefault(data["layer"], []).append(key)
    return [rows[layer] for layer in sorted(rows)]


def _ordered(proper: nx.DiGraph[Any], rows: list[list[Any]]) -> list[list[Any]]:
    """Rows in the order that crossed least in a number of sweeps down and up."""
    best, least = rows, _crossings(proper, rows)
    for sweep in range(_SWEEPS):
        rows = _swept(proper, rows, downwards=sweep % 2 == 0)
        if (count := _crossings(proper, rows)) < least:
            best, least = rows, count
    return best


def _swept(proper: nx.DiGraph[Any], rows: list[list[Any]], *, downwards: bool) -> list[list[Any]]:
    place = {key: index for row in rows for index, key in enumerate(row)}
    neighbours = proper.predecessors if downwards else proper.successors
    swept = []
    for row in rows if downwards else reversed(rows):
        means = {key: _mean([place[one] for one in neighbours(key)], place[key]) for key in row}
        row = sorted(row, key=means.__getitem__)
        place.update({key: index for index, key in enumerate(row)})
        swept.append(row)
    return swept if downwards else swept[::-1]


def _crossings(proper: nx.DiGraph[Any], rows: Sequence[Sequence[Any]]) -> int:
    place = {key: index for row in rows for index, key in enumerate(row)}
    count = 0
    for row in rows:
        ends = [place[after] for key in row for after in sorted(proper.successors(key), key=place.__getitem__)]
        count += sum(late < early for index, early in enumerate(ends) for late in ends[index + 1 :])
    return count


def _columns(
    proper: nx.DiGraph[Any], rows: Sequence[Sequence[Any]], widths: Mapping[Any, float], gap: float
) -> dict[Any, float]:
    """x of each node: as near as can be to the mean of its neighbours', in order, ``gap`` apart."""
    xs = dict[Any, float]()
    for row in rows:
        xs.update(_apart(row, dict.fromkeys(row, 0.0), proper, widths, gap))
    for sweep in range(2 * _SWEEPS):
        neighbours = (proper.predecessors, proper.successors, proper.to_undirected(as_view=True).neighbors)[sweep % 3]
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            wanted = {key: _mean([xs[one] for one in neighbours(key)], xs[key]) for key in row}
            xs.update(_apart(row, wanted, proper, widths, gap))
    return xs


def _apart(
    row: Sequence[Any], wanted: Mapping[Any, float], proper: nx.DiGraph[Any], widths: Mapping[Any, float], gap: float
) -> dict[Any, float]:
    """Least squares under the order: isotonic regression of what is wanted, by pooling neighbours that violate it."""
    offsets, at = [], 0.0
    for before, key in zip([None, *row], row, strict=False):
        at += 0.0 if before is None else (widths[before] + widths[key]) / 2 + gap
        offsets.append(at)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for key, offset in zip(row, offsets, strict=True):
        mean, weight, count = wanted[key] - offset, float(proper.nodes[key]["weight"]), 1
        while pools and pools[-1][0] >= mean:
            other, heavy, many = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + many
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return {key: mean + offset for key, mean, offset in zip(row, means, offsets, strict=True)}


def _heights(
    rows: Sequence[Sequence[Any]], sizes: Mapping[Any, tuple[float, float]], down: float
) -> tuple[dict[int, float], float]:
    """y of each row's middle by the layer it is, and the height of all."""
    ys, top = dict[int, float](), 0.0
    for layer, row in enumerate(rows):
        tallest = max(sizes.get(key, _DUMMY)[1] for key in row)
        ys[layer] = top + tallest / 2
        top += tallest + down
    return ys, top - down


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
