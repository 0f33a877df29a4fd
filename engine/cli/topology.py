"""``headrace topology``: what an app is made of, and how records go through it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from engine.cli.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cli.graph import Edge, Graph, Vertex

Format = Literal["text", "mermaid", "json", "svg"]

_SHAPES = {
    "topic": ("([", "])"),
    "agent": ("[", "]"),
    "operator": ("{{", "}}"),
    "table": ("[(", ")]"),
    "function": ("[/", "/]"),
}
_ARROWS = {"use": "-.->", "load": "-.->", "update": "<-.->"}


@click.command(cls=Command)
@click.argument("module", default="agents")
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "json", "svg"]),
              default="text", show_default=True, help="What to write.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="The file to write to. Default: standard output.")  # fmt: skip
@click.option("--dead-letters", is_flag=True, help="Show the topics of dead letters, too.")
def topology(module: str, form: Format, output: Path | None, *, dead_letters: bool) -> None:
    """Show an app's topology: topics, agents, joins and patterns, tables, repartition topics.

    Agents that share topics or tables form a sub-topology: they always run in the same worker, and
    a task is one partition of it. Needs no broker.

    text: a tree, in which records go from a line to those that are indented below it. mermaid: a
    flowchart for a page of Markdown. svg: a picture. json: its nodes and edges (docs/topology.md).

    \b
    Examples:
      headrace topology
      headrace topology shop.orders:app --format mermaid
      headrace topology --format svg --output topology.svg
      headrace topology --format json --dead-letters
    """
    from engine.cli.graph import graph_of
    from engine.cli.loading import load_app

    text = written(graph_of(load_app(module), dead_letters=dead_letters), form)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def written(graph: Graph, form: Format) -> str:
    """Return a topology in one of the forms."""
    match form:
        case "text":
            return "".join(f"{line}\n" for line in tree(graph))
        case "mermaid":
            return "".join(f"{line}\n" for line in mermaid(graph))
        case "svg":
            from engine.cli.chart import chart

            return chart(graph)
        case "json":
            import msgspec

            plain = msgspec.json.encode(graph)
            return msgspec.json.format(plain, indent=2).decode() + "\n"


# -- text ------------------------------------------------------------------------------------


def tree(graph: Graph) -> Iterator[str]:
    """Yield the lines of a topology as text."""
    kinds = {kind: [v for v in graph.vertices if v.kind == kind] for kind in _SHAPES}
    counted = [(len(graph.parts), "sub-topology", "sub-topologies"),
               *((len(found), kind, f"{kind}s") for kind, found in kinds.items())]  # fmt: skip
    said = ", ".join(f"{n} {one if n == 1 else more}" for n, one, more in counted if n)
    yield f"{graph.app}: {said}"
    leaves = _Tree(graph)
    for part, title in graph.titles().items():
        yield ""
        yield from leaves.lines(title, leaves.roots(part))
    apart = [v for v in graph.of_part(None) if v.id not in leaves.shown]
    if apart:
        yield ""
        yield from leaves.lines("neither read nor known to be written", apart)


class _Tree:
    """Writes trees, each vertex with what follows it only the first time."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shown: set[str] = set()
        self._vertices = {vertex.id: vertex for vertex in graph.vertices}
        self._following: dict[str, list[Edge]] = {}
        for edge in graph.edges:
            self._following.setdefault(edge.source, []).append(edge)

    def roots(self, part: str) -> list[Vertex]:
        """Return where the trees of a sub-topology begin: all of it can be reached from there."""
        mine = {vertex.id: vertex for vertex in self.graph.of_part(part)}
        entered = {e.target for e in self.graph.edges if e.source in mine and e.target in mine}
        found: list[Vertex] = []
        reached: set[str] = set()
        for id_, vertex in sorted(mine.items(), key=lambda item: item[0] in entered):
            if id_ not in reached:
                found.append(vertex)
                waiting = [id_]
                while waiting:
                    at = waiting.pop()
                    if at not in reached:
                        reached.add(at)
                        following = self._following.get(at, ())
                        waiting += [edge.target for edge in following if edge.target in mine]
        return found

    def lines(self, title: str, roots: list[Vertex]) -> Iterator[str]:
        """Yield a title and the trees below it, in two columns."""
        rows: list[tuple[str, str]] = []
        for number, vertex in enumerate(roots, 1):
            self._walk(vertex, "", rows, last=number == len(roots))
        width = max(len(name) for name, _ in rows) + 2
        yield title
        for name, about in rows:
            yield f"{name:<{width}}{about}".rstrip()

    def _walk(
        self, vertex: Vertex, before: str, rows: list[tuple[str, str]], *, last: bool
    ) -> None:
        name = f"{before}{'└─' if last else '├─'} {vertex.name}"
        if vertex.id in self.shown:
            rows.append((name, f"{vertex.kind}, see above"))
            return
        self.shown.add(vertex.id)
        rows.append((name, _about(vertex)))
        following = self._following.get(vertex.id, [])
        below = before + ("   " if last else "│  ")
        for number, edge in enumerate(following, 1):
            there = self._vertices[edge.target]
            ends = number == len(following)
            if there.part in {vertex.part, None}:
                self._walk(there, below, rows, last=ends)
            else:  # where it goes on
                name = f"{below}{'└─' if ends else '├─'} {there.name}"
                rows.append((name, f"{there.kind} of sub-topology {there.part}"))


def _about(vertex: Vertex) -> str:
    """Say what something is, in a line."""
    facts = vertex.facts()
    return " · ".join(["agent", *facts] if vertex.kind == "agent" else facts)


# -- mermaid ---------------------------------------------------------------------------------


def mermaid(graph: Graph) -> Iterator[str]:
    """Yield the lines of a topology as a Mermaid flowchart."""
    from engine.cli.chart import COLORS
    from engine.drawing import INK

    names = {vertex.id: f"n{number}" for number, vertex in enumerate(graph.vertices)}
    yield "flowchart LR"
    for part, title in graph.titles().items():
        yield f'  subgraph part{part}["{title}"]'
        for vertex in graph.of_part(part):
            yield f"    {_shape(names[vertex.id], vertex)}"
        yield "  end"
    for vertex in graph.of_part(None):
        yield f"  {_shape(names[vertex.id], vertex)}"
    for edge in graph.edges:
        yield f"  {names[edge.source]} {_ARROWS.get(edge.how, '-->')} {names[edge.target]}"
    for kind in dict.fromkeys(vertex.kind for vertex in graph.vertices):
        strong, light = COLORS[kind]
        yield f"  classDef {kind} fill:{light},stroke:{strong},color:{INK}"


def _shape(name: str, vertex: Vertex) -> str:
    start, end = _SHAPES[vertex.kind]
    what = vertex.kind if vertex.kind == "agent" else vertex.about
    label = f"<b>{_safe(vertex.name)}</b><br/>{_safe(what)}"
    return f'{name}{start}"{label}"{end}:::{vertex.kind}'


def _safe(text: str) -> str:
    """Write a text so that Mermaid takes it as it is: its own entities for what means something."""
    return "".join(c if c.isalnum() or c in " .,_-" else f"#{ord(c)};" for c in text)
