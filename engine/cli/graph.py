"""An app's topology as a graph: what there is, and where records go.

Every form of ``headrace topology`` shows this one graph.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine.agent import Agent
from engine.operator import Operator
from engine.topic import Topic
from engine.topology import tables_used_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.app import App
    from engine.table import TableHandle
    from engine.topology import Node, SubTopology

Kind = Literal["topic", "agent", "operator", "table", "function"]
How = Literal["read", "emit", "load", "update", "use", "yield", "result", "late", "reject", "call"]


class Vertex(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something in a topology.

    Attributes:
        id: the kind, a colon and the name.
        part: the name of the sub-topology that it belongs to; none: a topic that no agent reads.
        about: what it is, in some words.
        contract: of a topic: name and version.
        partitions: of a topic that says how many it is to have.
        internal: of a topic: it is the engine's own.
        repartition: of a topic: it is in the middle of an agent that re-keys its stream.
        changelog: of a table or an operator: the topic that its changes are logged to.
    """

    id: str
    kind: Kind
    name: str
    part: str | None = None
    about: str = ""
    contract: str = ""
    partitions: int | None = None
    internal: bool = False
    repartition: bool = False
    changelog: str = ""

    def facts(self) -> list[str]:
        """Return what is known of it, each in some words."""
        found = [self.about] if self.about else []
        if self.contract:
            same = self.contract.removeprefix(f"{self.name} ")
            found.append(f"contract {same}")
        if self.partitions is not None:
            found.append(f"{self.partitions} partition{'s' if self.partitions > 1 else ''}")
        if self.changelog:
            found.append(f"changelog {self.changelog}")
        return found


class Edge(msgspec.Struct, frozen=True):
    """A way that records or values take, by the ids of its ends.

    Attributes:
        how: ``read`` topic to agent or operator; ``yield`` operator to agent; ``emit`` agent or
            operator to topic; ``load`` topic to the table that it is; ``use`` table to who looks
            things up in it; ``update`` agent to a table that it may read too; ``result`` and
            ``late`` table to topic; ``reject`` topic to its dead letters; ``call`` agent to
            function.
    """

    source: str
    target: str
    how: How


EVERYWHERE = "global"
"""In place of a sub-topology's name: what each worker has whole."""


class Graph(msgspec.Struct, frozen=True):
    """A whole topology."""

    app: str
    parts: tuple[str, ...]
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]

    def of_part(self, part: str | None) -> list[Vertex]:
        """Return what belongs to a sub-topology, or to none."""
        return [vertex for vertex in self.vertices if vertex.part == part]

    def titles(self) -> dict[str, str]:
        """Return what to call each part."""
        said = {part: f"sub-topology {part}" for part in self.parts}
        return said | ({EVERYWHERE: "whole on each worker"} if EVERYWHERE in said else {})


def graph_of(app: App, *, dead_letters: bool = False) -> Graph:
    """Return the graph of what an app declares. Asks no broker.

    Args:
        dead_letters: show the topics for what breaks its contract, too.
    """
    topology = app.topology()
    made = _Making(app)
    for table in topology.globals:
        if table.source is not None:
            made.topic(table.source, EVERYWHERE)
        made.table(table, EVERYWHERE)
    for part in topology.parts:
        made.add_part(part, dead_letters=dead_letters)
    for topic in topology.topics.values():
        if topic.name in app.declared_topics:
            made.topic(topic)
    parts = [part.name for part in topology.parts] + [EVERYWHERE] * bool(topology.globals)
    app_id = app.settings().id
    return Graph(app_id, tuple(parts), tuple(made.vertices.values()), tuple(made.edges))


class _Making:
    """A graph in the making."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.vertices: dict[str, Vertex] = {}
        self.edges: dict[Edge, None] = {}

    def add_part(self, part: SubTopology, *, dead_letters: bool) -> None:
        """Add a sub-topology: its inputs and tables first, in the order of declaration."""
        moved = {node.moved.name for node in part.nodes if node.moved is not None}
        for topic in part.inputs:
            self.topic(topic, part.name, repartition=topic.internal and topic.name in moved)
        for table in part.tables:
            self.table(table, part.name)
        for node in part.nodes:
            self._node(node, part.name)
        if dead_letters:
            for topic in part.inputs:
                letters = topic.dead_letter_topic(1)
                about = f"dead letters of {topic.name}"
                vertex = Vertex(f"topic:{letters.name}", "topic", letters.name, about=about)
                self._edge(f"topic:{topic.name}", self._vertex(vertex), "reject")

    def topic(self, topic: Topic, part: str | None = None, *, repartition: bool = False) -> str:
        """Add a topic; one that a sub-topology reads belongs to it, whoever wrote to it before."""
        vertex = Vertex(
            f"topic:{topic.name}",
            "topic",
            topic.name,
            part,
            f"{_nature(topic, repartition=repartition)}topic",
            f"{topic.contract.name} v{topic.contract.version}",
            topic.config.partitions,
            topic.internal,
            repartition,
        )
        held = self.vertices.get(vertex.id)
        if held is not None and part is not None and held.part in {None, EVERYWHERE}:
            self.vertices[vertex.id] = vertex
        return self._vertex(vertex)

    def _vertex(self, vertex: Vertex) -> str:
        self.vertices.setdefault(vertex.id, vertex)
        return vertex.id

    def _edge(self, source: str, target: str, how: How) -> None:
        self.edges[Edge(source, target, how)] = None

    def table(self, table: TableHandle, part: str) -> None:
        """Add a table or an operator, and what flows into it and out of it by itself."""
        kind: Kind = "operator" if isinstance(table, Operator) else "table"
        log = table.changelog.name if table.changelog is not None else ""
        me = self._vertex(
            Vertex(_id(table), kind, table.name, part, described(table), changelog=log)
        )
        if table.source is not None:
            self._edge(self.topic(table.source), me, "load")
        for topic in table.outputs:
            how: How = "emit" if kind == "operator" else "result"
            self._edge(me, self.topic(topic), "late" if topic is table.late_topic else how)
        if isinstance(table, Operator):
            for topic in table.inputs:
                self._edge(self.topic(topic), me, "read")
            for used in table.uses:
                self._edge(_id(used), me, "use")

    def _node(self, node: Node, part: str) -> None:
        agent = node.agent
        about = (agent.__doc__ or "").strip().partition("\n")[0]
        if node.stage == "before":
            about = "up to its group_by"
        me = self._vertex(Vertex(f"agent:{node.name}", "agent", node.name, part, about))
        operators = [table for table in node.tables if isinstance(table, Operator)]
        by_operators = {topic.name for each in operators for topic in each.inputs}
        for topic in node.inputs:
            if topic.name not in by_operators:
                self._edge(self.topic(topic), me, "read")
        for each in operators:
            self._edge(_id(each), me, "yield")
        for table in self._own_tables(node):
            if table.is_global or table.source is not None:
                self._edge(_id(table), me, "use")
            else:
                self._edge(me, _id(table), "update")
        if node.stage == "before":
            assert node.moved is not None
            self._edge(me, self.topic(node.moved), "emit")
            return
        for sink in agent.sinks:
            self._sink(me, sink)

    def _own_tables(self, node: Node) -> Iterable[TableHandle]:
        """Return the tables that an agent's own code uses, not only its operators."""
        own = tables_used_by(node.agent, tuple(self._app.declared_tables.values()))
        own_names = {table.name for table in own if not isinstance(table, Operator)}
        everywhere = [table for table in own if table.is_global and node.stage != "before"]
        return [*everywhere, *(table for table in node.tables if table.name in own_names)]

    def _sink(self, agent: str, sink: Any) -> None:
        topic = sink.channel if isinstance(sink, Agent) else sink
        if isinstance(topic, Topic):
            self._edge(agent, self.topic(topic), "emit")
        else:
            name = str(getattr(sink, "__name__", sink))
            vertex = Vertex(f"function:{name}", "function", name, about="function")
            self._edge(agent, self._vertex(vertex), "call")


def _nature(topic: Topic, *, repartition: bool) -> str:
    return "repartition " if repartition else "internal " if topic.internal else ""


def _id(table: TableHandle) -> str:
    return f"{'operator' if isinstance(table, Operator) else 'table'}:{table.name}"


def described(table: TableHandle) -> str:
    """Say what kind of table or operator it is: its class as words, and what decides its results.

    Goes by the names of attributes, which are the same for all kinds.
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(table).__name__.strip("_")).lower()
    said = ["table" if words == "declaring" else words]
    windows, gap = getattr(table, "windows", None), getattr(table, "gap", None)
    if windows is not None:
        advance_ms = getattr(windows, "advance_ms", None)
        how = f"every {span(advance_ms)}" if advance_ms else "sliding"
        how = "tumbling" if advance_ms == windows.size_ms else how
        said.append(f"{span(windows.size_ms)} {how}")
    if gap is not None:
        said.append(f"gap {span(gap.gap_ms)}")
    said += [each for each in (getattr(table, "how", None),) if each]
    if history_ms := getattr(table, "history_ms", None):
        said.append(f"history {span(history_ms)}")
    return ", ".join(said)


def span(ms: int) -> str:
    """Write a time in the largest unit that it is a whole number of."""
    units = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1))
    name, size = next((name, size) for name, size in units if ms % size == 0)
    return f"{ms // size} {name}"
