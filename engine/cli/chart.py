"""A topology as an SVG: topics, agents, operators and tables as boxes, sub-topologies around them.

Records go from left to right; what no agent reads stands at the right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.cli.layout import Cell, place
from engine.drawing import GREY, INK, PALE, Box, Drawing, text_px, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.cli.graph import Graph, Vertex
    from engine.cli.layout import Route

EDGE = 20
TITLE = 44
SMALL = 11
NAME_LINE, ABOUT_LINE = 16, 14
NAME_PX, ABOUT_PX = 190, 190
HEAD = 30
"""Above the boxes of a sub-topology: its name."""
MARGIN = 14
ARROW = 7
COLORS = {
    "topic": ("#475569", "#f1f5f9"),
    "agent": ("#1d4ed8", "#dbeafe"),
    "operator": ("#7e22ce", "#efe3fb"),
    "table": ("#0f766e", "#d5f2ec"),
    "function": ("#b45309", "#fdeed0"),
}
DASHED = {"use", "update", "load"}
"""What of the edges is not a way of records, but of looking things up and of keeping them."""


def chart(graph: Graph) -> str:
    """Return the picture."""
    vertices = {vertex.id: vertex for vertex in graph.vertices}
    lines = {id_: _lines(vertex) for id_, vertex in vertices.items()}
    bands = _bands(graph)
    placed = place(
        [_cell(vertices[id_], lines[id_], bands[id_]) for id_ in vertices],
        [(edge.source, edge.target) for edge in graph.edges],
        head=HEAD,
    )
    how = {(edge.source, edge.target): edge.how for edge in graph.edges}
    made = Drawing(f"Topology of {graph.app}")
    made.text(EDGE, 28, made.title, size=16, bold=True)
    left, top = EDGE + MARGIN, TITLE
    for part, title in graph.titles().items():
        ids = [vertex.id for vertex in graph.of_part(part)]
        _frame(made, [_moved(placed.boxes[id_], left, top) for id_ in ids], title)
    for route in placed.routes:
        _edge(made, route, left, top, both=how[route.source, route.target] == "update",
              dashed=how[route.source, route.target] in DASHED)  # fmt: skip
    for id_, vertex in vertices.items():
        _box(made, vertex, _moved(placed.boxes[id_], left, top), lines[id_])
    width = max(left + placed.width + MARGIN + EDGE, 2 * EDGE + 1.1 * text_px(made.title, 16))
    return made.svg(width, top + placed.height + MARGIN + EDGE)


def _lines(vertex: Vertex) -> tuple[list[str], list[str]]:
    """Return the lines of a box: its name, and what is said about it."""
    apart = wrapped(re.sub(r"(?<=[-._])(?=.)", " ", vertex.name), NAME_PX)
    name = [line.replace(" ", "") for line in apart]
    facts = [fact for fact in vertex.facts() if not fact.startswith("changelog")]
    if vertex.kind == "agent":
        facts = facts if vertex.name.endswith(".move") else ["agent"]
    return name, [line for fact in facts for line in wrapped(fact, ABOUT_PX, SMALL)]


def _cell(vertex: Vertex, lines: tuple[list[str], list[str]], band: int) -> Cell:
    name, about = lines
    width = max([1.08 * text_px(line) for line in name] + [text_px(line, SMALL) for line in about])
    height = NAME_LINE * len(name) + ABOUT_LINE * len(about) + 16
    if vertex.kind == "table":
        height += 10
    return Cell(vertex.id, width + 36, height, band, vertex.part is None)


def _bands(graph: Graph) -> dict[str, int]:
    """Return the band of each vertex: its part's; of what no agent reads, that of who writes it."""
    number = {part: at for at, part in enumerate(graph.parts)}
    bands = {v.id: number[v.part] for v in graph.vertices if v.part is not None}
    for edge in graph.edges:
        if edge.source in bands:
            bands.setdefault(edge.target, bands[edge.source])
    return {v.id: bands.get(v.id, len(number)) for v in graph.vertices}


def _moved(box: Box, x: float, y: float) -> Box:
    return box._replace(x=box.x + x, y=box.y + y)


def _frame(made: Drawing, boxes: Sequence[Box], name: str) -> None:
    """Draw a sub-topology around its boxes."""
    x, y = min(box.x for box in boxes) - MARGIN, min(box.y for box in boxes) - HEAD
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    right = max(right, x + text_px(name, SMALL) + MARGIN)
    frame = Box(x, y, right - x + MARGIN, bottom - y + MARGIN)
    made.rect(frame, fill="#fafbfc", stroke=PALE, radius=8)
    made.text(x + 12, y + 17, name, size=SMALL, fill=GREY, bold=True)


def _edge(
    made: Drawing, route: Route, left: float, top: float, *, both: bool, dashed: bool
) -> None:
    """Draw an edge: straight where it passes a column, curved between two."""
    stops = [(x + left, right + left, y + top) for x, right, y in route.stops]
    forward, backward = (both or not route.turned), (both or route.turned)
    _, x, y = stops[0]
    x += ARROW if backward else 0
    d = f"M{x:g} {y:g}"
    for number, (start, end, to) in enumerate(stops[1:], 2):
        last = number == len(stops)
        at = start - (ARROW if last and forward else 0)
        middle = (x + at) / 2
        d += f"C{middle:g} {y:g} {middle:g} {to:g} {at:g} {to:g}"
        if not last:
            d += f"H{end:g}"
        x, y = end, to
    made.path(_short(d), stroke=GREY, width=1.4, dash="4 3" if dashed else "")
    if forward:
        _arrow(made, stops[-1][0], stops[-1][2], 1)
    if backward:
        _arrow(made, stops[0][1], stops[0][2], -1)


def _short(d: str) -> str:
    return re.sub(r"\d+\.\d+", lambda match: f"{round(float(match[0]), 1):g}", d)


def _arrow(made: Drawing, x: float, y: float, direction: int) -> None:
    back = x - direction * ARROW
    d = _short(f"M{x:g} {y:g}L{back:g} {y - 4:g}L{back:g} {y + 4:g}Z")
    made.path(d, stroke=GREY, fill=GREY)


def _box(made: Drawing, vertex: Vertex, box: Box, lines: tuple[list[str], list[str]]) -> None:
    """Draw a box: round for a topic, a drum for a table, square for who works."""
    strong, light = COLORS[vertex.kind]
    name, about = lines
    y = box.y + 8 + 12
    if vertex.kind == "table":
        for part in _drum(box):
            made.path(part, stroke=strong, fill=light)
        y += 8
    else:
        radius = min(box.height / 2, 20) if vertex.kind == "topic" else 3
        dash = "5 3" if vertex.internal else ""
        made.rect(box, fill=light, stroke=strong, radius=radius, dash=dash)
    middle = box.x + box.width / 2
    for line in name:
        made.text(middle, y, line, anchor="middle", fill=INK, bold=True)
        y += NAME_LINE
    for line in about:
        made.text(middle, y - 2, line, anchor="middle", size=SMALL, fill=strong)
        y += ABOUT_LINE


def _drum(box: Box) -> tuple[str, str]:
    """Return the outlines of a drum: its body and its lid."""
    x, right, top, bottom = box.x, box.right, box.y + 6, box.bottom - 6
    around = f"A{box.width / 2:.1f} 6 0 0"
    body = f"M{x:g} {top:g}V{bottom:g}{around} 0 {right:g} {bottom:g}V{top:g}"
    lid = f"M{x:g} {top:g}{around} 1 {right:g} {top:g}{around} 1 {x:g} {top:g}Z"
    return _short(body), _short(lid)
