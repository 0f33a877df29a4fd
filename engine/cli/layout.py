"""Where the boxes of a layered chart go: columns from left to right, bands from top to bottom.

The usual four steps (Sugiyama, Tagawa, Toda 1981): turn the edges around that close a cycle; give
each box the column behind all that lead to it; order each column so that few edges cross; move the
boxes up and down until the edges are straight. An edge that passes a column has a place in it like
a box, so no edge runs through one. What belongs together has a band of its own over all columns,
so bands never overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

from engine.drawing import Box

COLUMN_GAP = 64
"""Between two columns, for the curves of the edges."""
ROW_GAP = 18
PASS_HEIGHT = 6
"""What an edge takes up in a column that it passes."""
BAND_GAP = 30
SWEEPS = 12

Arc = tuple[str, str]


class Cell(NamedTuple):
    """A box to be placed.

    Attributes:
        band: what it belongs to.
        last: it goes to the last column, whatever leads to it.
    """

    id: str
    width: float
    height: float
    band: int
    last: bool = False


class Route(NamedTuple):
    """The way of an edge: where it meets each column that it touches, left and right edge of it."""

    source: str
    target: str
    stops: tuple[tuple[float, float, float], ...]
    turned: bool


class Placed(NamedTuple):
    """A layout, in px from its upper left corner."""

    boxes: dict[str, Box]
    routes: list[Route]
    width: float
    height: float


class _Grid(NamedTuple):
    """Boxes and passing edges by column; each has neighbours only in the columns beside its own."""

    columns: list[list[str]]
    heights: dict[str, float]
    bands: dict[str, int]
    links: list[Arc]
    passes: dict[Arc, list[str]]


def place(cells: Sequence[Cell], arcs: Iterable[Arc], *, head: float = 0) -> Placed:
    """Lay boxes out.

    Args:
        cells: the boxes; their order is that of the columns where nothing else decides.
        head: what each band has above its boxes.
    """
    known = {cell.id: cell for cell in cells}
    arcs = [arc for arc in dict.fromkeys(arcs) if arc[0] != arc[1]]
    turned = _closing(list(known), arcs)
    ahead = [(b, a) if (a, b) in turned else (a, b) for a, b in arcs]
    grid = _grid(known, _columns(cells, ahead), ahead)
    _order(grid)
    middles, height = _heights(grid, head)
    edges = _edges_of(grid, known)
    boxes = {
        id_: Box(left + (right - left - known[id_].width) / 2, middles[id_] - known[id_].height / 2,
                 known[id_].width, known[id_].height)
        for column, (left, right) in zip(grid.columns, edges, strict=True)
        for id_ in column
        if id_ in known
    }  # fmt: skip
    where = {id_: edge for column, edge in zip(grid.columns, edges, strict=True) for id_ in column}
    routes = [
        Route(
            *arc,
            tuple(
                (*((boxes[id_].x, boxes[id_].right) if id_ in boxes else where[id_]), middles[id_])
                for id_ in grid.passes[forward]
            ),
            arc in turned,
        )
        for arc, forward in zip(arcs, ahead, strict=True)
    ]
    return Placed(boxes, routes, edges[-1][1], height)


def _closing(ids: Sequence[str], arcs: Sequence[Arc]) -> set[Arc]:
    """Return the edges without which there is no cycle: those that lead back in a deep search."""
    following: dict[str, list[str]] = {id_: [] for id_ in ids}
    for a, b in arcs:
        following[a].append(b)
    closing: set[Arc] = set()
    done: set[str] = set()
    for root in ids:
        path: list[tuple[str, int]] = [(root, 0)] if root not in done else []
        open_ = {root}
        while path:
            id_, at = path.pop()
            if at == len(following[id_]):
                open_.discard(id_)
                done.add(id_)
                continue
            path.append((id_, at + 1))
            to = following[id_][at]
            if to in open_:
                closing.add((id_, to))
            elif to not in done:
                open_.add(to)
                path.append((to, 0))
    return closing


def _columns(cells: Sequence[Cell], ahead: Iterable[Arc]) -> dict[str, int]:
    """Return each box's column: behind all before it; a box without any right before the next."""
    before: dict[str, set[str]] = {cell.id: set() for cell in cells}
    after: dict[str, set[str]] = {cell.id: set() for cell in cells}
    for a, b in ahead:
        before[b].add(a)
        after[a].add(b)
    column: dict[str, int] = {}
    for id_ in TopologicalSorter(before).static_order():
        column[id_] = max((column[each] + 1 for each in before[id_]), default=0)
    for id_ in column:
        if not before[id_] and after[id_]:
            column[id_] = min(column[each] for each in after[id_]) - 1
    inner = max((column[cell.id] for cell in cells if not cell.last), default=-1)
    column |= {cell.id: inner + 1 for cell in cells if cell.last}
    return column


def _grid(known: Mapping[str, Cell], column: Mapping[str, int], ahead: Iterable[Arc]) -> _Grid:
    """Put boxes into columns, and a place for each edge into the columns that it passes."""
    columns: list[list[str]] = [[] for _ in range(max(column.values(), default=0) + 1)]
    for id_ in known:
        columns[column[id_]].append(id_)
    heights = {id_: cell.height for id_, cell in known.items()}
    bands = {id_: cell.band for id_, cell in known.items()}
    links: list[Arc] = []
    passes: dict[Arc, list[str]] = {}
    for a, b in ahead:
        way = [a]
        for number in range(column[a] + 1, column[b]):
            id_ = f"{a}\n{b}\n{number}"  # no box is called that
            columns[number].append(id_)
            heights[id_], bands[id_] = PASS_HEIGHT, known[a].band
            way.append(id_)
        passes[a, b] = [*way, b]
        links += pairwise(passes[a, b])
    return _Grid(columns, heights, bands, links, passes)


def _order(grid: _Grid) -> None:
    """Sort each column by where the neighbours of its boxes are; keep the best of some rounds."""
    for column in grid.columns:
        column.sort(key=lambda id_: grid.bands[id_])
    to_left, to_right = _neighbours(grid.links)
    best, fewest = [list(column) for column in grid.columns], _crossings(grid.columns, grid.links)
    for sweep in range(SWEEPS):
        sides = to_left if sweep % 2 == 0 else to_right
        for column in grid.columns if sweep % 2 == 0 else reversed(grid.columns):
            share = _shares(grid.columns)
            wanted = {
                id_: (grid.bands[id_], _mean([share[n] for n in sides.get(id_, ())], share[id_]))
                for id_ in column
            }
            column.sort(key=wanted.__getitem__)
        crossings = _crossings(grid.columns, grid.links)
        if crossings < fewest:
            best, fewest = [list(column) for column in grid.columns], crossings
    for column, order in zip(grid.columns, best, strict=True):
        column[:] = order


def _shares(columns: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return how far down its column each box is, from 0 to 1."""
    return {id_: (at + 0.5) / len(column) for column in columns for at, id_ in enumerate(column)}


def _neighbours(links: Iterable[Arc]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    to_left: dict[str, list[str]] = {}
    to_right: dict[str, list[str]] = {}
    for a, b in links:
        to_right.setdefault(a, []).append(b)
        to_left.setdefault(b, []).append(a)
    return to_left, to_right


def _mean(numbers: Sequence[float], default: float) -> float:
    return sum(numbers) / len(numbers) if numbers else default


def _crossings(columns: Sequence[Sequence[str]], links: Iterable[Arc]) -> int:
    """Count the pairs of edges that cross between two columns."""
    at = {id_: (number, row) for number, col in enumerate(columns) for row, id_ in enumerate(col)}
    between: dict[int, list[tuple[int, int]]] = {}
    for a, b in links:
        between.setdefault(at[a][0], []).append((at[a][1], at[b][1]))
    return sum(
        (one[0] - other[0]) * (one[1] - other[1]) < 0
        for pairs in between.values()
        for number, one in enumerate(pairs)
        for other in pairs[:number]
    )


def _heights(grid: _Grid, head: float) -> tuple[dict[str, float], float]:
    """Return the middle of each box, and the height of all: band under band."""
    middles: dict[str, float] = {}
    top = 0.0
    for band in sorted(set(grid.bands.values())):
        columns = [[id_ for id_ in col if grid.bands[id_] == band] for col in grid.columns]
        links = [(a, b) for a, b in grid.links if grid.bands[a] == grid.bands[b] == band]
        found = _straightened(columns, links, grid.heights)
        high = min(middle - grid.heights[id_] / 2 for id_, middle in found.items())
        low = max(middle + grid.heights[id_] / 2 for id_, middle in found.items())
        middles |= {id_: middle - high + top + head for id_, middle in found.items()}
        top += low - high + head + BAND_GAP
    return middles, top - BAND_GAP


def _straightened(
    columns: Sequence[Sequence[str]], links: Sequence[Arc], heights: Mapping[str, float]
) -> dict[str, float]:
    """Return the middles of a band's boxes: near those of their neighbours, in their order."""
    to_left, to_right = _neighbours(links)
    middles: dict[str, float] = {}
    for column in columns:
        middles |= _spread(column, dict.fromkeys(column, 0.0), heights)
    for sweep in range(SWEEPS + 1):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            sides = to_right if sweep % 2 else to_left
            if sweep == SWEEPS:
                sides = {id_: [*to_left.get(id_, ()), *to_right.get(id_, ())] for id_ in column}
            wanted = {
                id_: _mean([middles[each] for each in sides.get(id_, ())], middles[id_])
                for id_ in column
            }
            middles |= _spread(column, wanted, heights)
    return middles


def _spread(
    column: Sequence[str], wanted: Mapping[str, float], heights: Mapping[str, float]
) -> dict[str, float]:
    """Return the middles nearest to those wanted (least squares) that keep order and distance.

    Boxes that would come too near are put together into a block, which goes where its boxes want
    to be on average.
    """
    offsets: list[float] = []
    for above, id_ in zip([None, *column], column, strict=False):
        apart = 0.0 if above is None else (heights[above] + heights[id_]) / 2 + ROW_GAP
        offsets.append((offsets[-1] if offsets else 0.0) + apart)
    blocks: list[list[float]] = []
    for id_, offset in zip(column, offsets, strict=True):
        blocks.append([wanted[id_] - offset])
        while len(blocks) > 1 and _mean(blocks[-2], 0) > _mean(blocks[-1], 0):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    starts = [_mean(block, 0) for block in blocks for _ in block]
    return {id_: start + offset for id_, start, offset in zip(column, starts, offsets, strict=True)}


def _edges_of(grid: _Grid, known: Mapping[str, Cell]) -> list[tuple[float, float]]:
    """Return the left and the right edge of each column."""
    edges: list[tuple[float, float]] = []
    left = 0.0
    for column in grid.columns:
        width = max((known[id_].width for id_ in column if id_ in known), default=0.0)
        edges.append((left, left + width))
        left += width + COLUMN_GAP
    return edges
