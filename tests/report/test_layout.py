"""Laws of the layout, on any acyclic graph."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxqat.report.drawing import NARROW, WIDE, Op, draw
from fxqat.report.layout import place

SMALL = 1e-6


@st.composite
def graphs(pick: Any) -> nx.DiGraph[int]:
    """Up to 14 nodes, edges from lower to higher numbers."""
    count = pick(st.integers(1, 14))
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    graph.add_edges_from(pick(st.lists(pairs, max_size=24)) if count > 1 else [])
    return graph


@given(graphs())
@settings(max_examples=60)
def test_edges_point_down_and_boxes_do_not_touch(graph: nx.DiGraph[int]) -> None:
    sizes = {node: (40.0 + 7 * (node % 3), 20.0) for node in graph}
    placed = place(graph, sizes, across=10, down=8)
    for start, end in graph.edges:
        points = [placed.centres[start], *placed.routes[start, end], placed.centres[end]]
        assert all(above[1] < below[1] for above, below in pairwise(points))
    rows: dict[float, list[tuple[float, float]]] = {}
    for node, (x, y) in placed.centres.items():
        rows.setdefault(y, []).append((x - sizes[node][0] / 2, x + sizes[node][0] / 2))
    for row in rows.values():
        assert all(left[1] + 10 <= right[0] + SMALL for left, right in pairwise(sorted(row)))
    assert all(0 <= y <= placed.height for _, y in placed.centres.values())
    assert all(x + sizes[node][0] / 2 <= placed.width + SMALL for node, (x, _) in placed.centres.items())
    assert min(x - sizes[node][0] / 2 for node, (x, _) in placed.centres.items()) >= -SMALL


def test_a_chain_stands_in_line_and_a_long_edge_goes_around() -> None:
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 3), (0, 3)])
    placed = place(graph, dict.fromkeys(graph, (40.0, 20.0)), across=10, down=8)
    assert len(placed.routes[0, 3]) == 2
    for node in (1, 2):
        beside = placed.routes[0, 3][node - 1]
        assert abs(beside[0] - placed.centres[node][0]) >= 20


def test_two_crossing_edges_are_uncrossed() -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from(["a", "b", "c", "d"])
    graph.add_edges_from([("a", "d"), ("b", "c")])
    placed = place(graph, dict.fromkeys(graph, (40.0, 20.0)), across=10, down=8).centres
    assert (placed["a"][0] < placed["b"][0]) == (placed["d"][0] < placed["c"][0])


@pytest.mark.parametrize("blocks", [1, 5, 24])
def test_a_drawing_keeps_everything_in_its_block(blocks: int) -> None:
    ops = [op for index in range(blocks) for op in _block(index)]
    drawing = draw(ops)
    frames = {frame.key: frame for frame in drawing.blocks}
    for op in ops:
        box, frame = drawing.boxes[op.site], frames[op.block]
        assert (box.width, box.height) == (WIDE if op.layer else NARROW)
        assert frame.x <= box.x
        assert box.x + box.width <= frame.x + frame.width + SMALL
        assert frame.y <= box.y
        assert box.y + box.height <= frame.y + frame.height + SMALL
    for one, other in ((a, b) for a in drawing.blocks for b in drawing.blocks if a.key < b.key):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    assert len(drawing.edges) == sum(len(op.inputs) for op in ops)
    assert blocks < 24 or 0.7 < drawing.width / drawing.height < 3


def _block(index: int) -> list[Op]:
    name, before = f"model.{index}", (f"model.{index - 1}.join",) if index else ()
    return [
        Op(site=f"{name}.conv", block=name, inputs=before, layer=True),
        Op(site=f"{name}.left", block=name, inputs=(f"{name}.conv",), layer=True),
        Op(site=f"{name}.join", block=name, inputs=(f"{name}.left", f"{name}.conv"), layer=False),
    ]
