"""A detector's graph as a picture: each block of the source model laid out by layers, the blocks one below the other in
columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from fxqat.report.layout import GraphLayout, place

WIDE, NARROW = (132.0, 36.0), (84.0, 22.0)  # pixels at zoom 1: of layers, and of everything else
_ACROSS, _DOWN = 12.0, 14.0
_PAD, _TITLE = 12.0, 20.0
_BLOCK_GAP, _COLUMN_GAP = 26.0, 76.0
_ASPECT = 1.5  # width to height that the columns are chosen for

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Op:
    """A node to draw: its site, the block it belongs to, the sites it reads, and whether it is a layer."""

    site: str
    block: str
    inputs: tuple[str, ...]
    layer: bool


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle: of an operation or of a block."""

    key: str
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """x of its middle."""
        return self.x + self.width / 2

    def moved(self, dx: float, dy: float) -> Box:
        """The same box elsewhere."""
        return Box(key=self.key, x=self.x + dx, y=self.y + dy, width=self.width, height=self.height)


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A value on its way: from a site to a site, the path as SVG writes it."""

    start: str
    end: str
    path: str
    long: bool


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Everything with its place; (0, 0) is the left upper corner."""

    boxes: Mapping[str, Box]
    blocks: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class _Block:
    name: str
    placed: GraphLayout
    boxes: tuple[Box, ...]
    width: float
    height: float


def draw(ops: Sequence[Op]) -> Drawing:
    """Lay out ``ops``, given in the order of the computation."""
    members = dict[str, list[Op]]()
    for op in ops:
        members.setdefault(op.block, []).append(op)
    blocks = [_block(name, found) for name, found in members.items()]
    columns = _in_columns(blocks)
    boxes, frames, routes = dict[str, Box](), list[Box](), dict[tuple[str, str], tuple[Point, ...]]()
    left = 0.0
    for column in columns:
        top, width = 0.0, max(block.width for block in column)
        for block in column:
            dx, dy = left + (width - block.width) / 2, top
            frames.append(Box(key=block.name, x=dx, y=dy, width=block.width, height=block.height))
            boxes.update({box.key: box.moved(dx, dy) for box in block.boxes})
            for edge, points in block.placed.routes.items():
                routes[edge] = tuple((x + dx + _PAD, y + dy + _TITLE) for x, y in points)
            top += block.height + _BLOCK_GAP
        left += width + _COLUMN_GAP
    where = {block.name: index for index, column in enumerate(columns) for block in column}
    edges = tuple(_edges(ops, boxes, frames, routes, where))
    height = max(frame.y + frame.height for frame in frames)
    return Drawing(boxes=boxes, blocks=tuple(frames), edges=edges, width=left - _COLUMN_GAP, height=height)


def _block(name: str, ops: Sequence[Op]) -> _Block:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(op.site for op in ops)
    graph.add_edges_from((source, op.site) for op in ops for source in op.inputs if source in graph)
    sizes = {op.site: WIDE if op.layer else NARROW for op in ops}
    placed = place(graph, sizes, across=_ACROSS, down=_DOWN)
    boxes = tuple(_box(op.site, placed.centres[op.site], sizes[op.site]) for op in ops)
    width, height = placed.width + 2 * _PAD, placed.height + _TITLE + _PAD
    return _Block(name=name, placed=placed, boxes=boxes, width=width, height=height)


def _box(site: str, centre: Point, size: tuple[float, float]) -> Box:
    x, y = centre[0] + _PAD - size[0] / 2, centre[1] + _TITLE - size[1] / 2
    return Box(key=site, x=x, y=y, width=size[0], height=size[1])


def _in_columns(blocks: Sequence[_Block]) -> list[list[_Block]]:
    """The blocks broken into the number of columns whose width and height come nearest to ``_ASPECT``."""
    found = [_broken(blocks, count) for count in range(1, min(6, len(blocks)) + 1)]
    return min(found, key=lambda columns: abs(_aspect(columns) - _ASPECT))


def _broken(blocks: Sequence[_Block], count: int) -> list[list[_Block]]:
    """At most ``count`` columns, in order, the tallest as short as can be."""
    low = max(block.height for block in blocks)
    high = sum(block.height + _BLOCK_GAP for block in blocks)
    while high - low > 1:
        limit = (low + high) / 2
        low, high = (low, limit) if len(_filled(blocks, limit)) <= count else (limit, high)
    return _filled(blocks, high)


def _filled(blocks: Sequence[_Block], limit: float) -> list[list[_Block]]:
    columns: list[list[_Block]] = [[]]
    for block in blocks:
        if columns[-1] and _height([*columns[-1], block]) > limit:
            columns.append([])
        columns[-1].append(block)
    return columns


def _height(column: Sequence[_Block]) -> float:
    return sum(block.height + _BLOCK_GAP for block in column) - _BLOCK_GAP


def _aspect(columns: Sequence[Sequence[_Block]]) -> float:
    width = sum(max(block.width for block in column) + _COLUMN_GAP for column in columns)
    return width / max(_height(column) for column in columns)


def _edges(
    ops: Sequence[Op],
    boxes: Mapping[str, Box],
    frames: Sequence[Box],
    routes: Mapping[tuple[str, str], tuple[Point, ...]],
    column: Mapping[str, int],
) -> list[Edge]:
    block = {op.site: op.block for op in ops}
    order = {frame.key: index for index, frame in enumerate(frames)}
    frame_of = {frame.key: frame for frame in frames}
    edges = []
    for op in ops:
        for source in dict.fromkeys(op.inputs):
            start, end = boxes[source], boxes[op.site]
            home, there = block[source], block[op.site]
            near = home == there or (column[home] == column[there] and order[there] - order[home] == 1)
            if near:
                path = _down(start, end, routes.get((source, op.site), ()))
            elif column[home] == column[there]:
                between = [frame for frame in frames if order[home] <= order[frame.key] <= order[there]]
                path = _aside(start, end, max(frame.x + frame.width for frame in between))
            else:
                path = _across(start, end, frame_of[home], frame_of[there])
            edges.append(Edge(start=source, end=op.site, path=path, long=not near))
    return edges


def _down(start: Box, end: Box, between: Sequence[Point]) -> str:
    points = [(start.middle, start.y + start.height), *between, (end.middle, end.y)]
    return f"M{_xy(points[0])}" + "".join(_bend(a, b) for a, b in pairwise(points))


def _bend(a: Point, b: Point) -> str:
    half = (a[1] + b[1]) / 2
    return f"C{_xy((a[0], half))} {_xy((b[0], half))} {_xy(b)}"


def _aside(start: Box, end: Box, edge: float) -> str:
    """Out at the right, down beside the blocks, in from above."""
    x, y = start.x + start.width, start.y + start.height / 2
    out = edge + 14 + 14 * min(1.0, (end.y - start.y) / 3000)
    return (
        f"M{_xy((x, y))}C{_xy((out, y))} {_xy((out, y))} {_xy((out, y + 30))}"
        f"L{_xy((out, end.y - 34))}C{_xy((out, end.y - 12))} {_xy((end.middle, end.y - 26))} {_xy((end.middle, end.y))}"
    )


def _across(start: Box, end: Box, home: Box, there: Box) -> str:
    """Out at the right of a block, in at the left of one in a later column."""
    a, b = (start.x + start.width, start.y + start.height / 2), (end.x, end.y + end.height / 2)
    out, into = (max(a[0], home.x + home.width) + 8, a[1]), (min(b[0], there.x) - 8, b[1])
    reach = max(40.0, (into[0] - out[0]) / 2)
    return (
        f"M{_xy(a)}L{_xy(out)}C{_xy((out[0] + reach, out[1]))} {_xy((into[0] - reach, into[1]))} {_xy(into)}L{_xy(b)}"
    )


def _xy(point: Point) -> str:
    return f"{point[0]:.0f} {point[1]:.0f}"
