"""Which agents, topics and tables belong together: sub-topologies, and whether they fit.

Agents that share a topic or a table form one sub-topology, since their records and state must be
in the same place. A task is one partition of a sub-topology. All of its inputs need the same number
of partitions, or equal keys would not meet.
"""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from engine.agent import Agent, Stage
from engine.contracts.contract import Contract
from engine.errors import ConfigError
from engine.move import Move
from engine.policy import Policy
from engine.table import Table, TableHandle
from engine.topic import Topic
from tables.codec import TEXT_KEYS

if TYPE_CHECKING:
    from engine.timers import Punctuator


class Node(msgspec.Struct, frozen=True):
    """An agent, or one half of one that re-keys its stream.

    Attributes:
        inputs: the topics that this part reads.
        moved: the topic between the two halves.
    """

    agent: Agent
    stage: Stage
    inputs: tuple[Topic, ...]
    moved: Topic | None
    tables: tuple[TableHandle, ...]

    @property
    def name(self) -> str:
        """The agent's name, or that of its first half."""
        return f"{self.agent.name}.move" if self.stage == "before" else self.agent.name

    @property
    def writes(self) -> set[str]:
        """The topics that it is known to write to: sinks, changelogs, results."""
        if self.stage == "before":
            return {self.moved.name} if self.moved is not None else set()
        sinks = [sink.channel if isinstance(sink, Agent) else sink for sink in self.agent.sinks]
        names = {sink.name for sink in sinks if isinstance(sink, Topic)}
        names |= {table.changelog.name for table in self.tables if table.changelog is not None}
        return names | {topic.name for table in self.tables for topic in table.outputs}


class SubTopology(msgspec.Struct, frozen=True):
    """Agents, tables and input topics that live and move together."""

    name: str
    nodes: tuple[Node, ...]
    tables: tuple[TableHandle, ...]
    inputs: tuple[Topic, ...]
    punctuators: tuple[Punctuator, ...] = ()
    width: int = 0

    @property
    def sources(self) -> dict[str, TableHandle]:
        """The tables that are topics, by the topic's name."""
        return {table.source.name: table for table in self.tables if table.source is not None}

    @property
    def outputs(self) -> tuple[Topic, ...]:
        """The topics that it may write to, changelogs not counted."""
        found: dict[str, Topic] = {}
        for node in self.nodes:
            sinks = [*node.agent.sinks] if node.stage != "before" else []
            for sink in [*sinks, node.moved if node.stage == "before" else None]:
                topic = sink.channel if isinstance(sink, Agent) else sink
                if isinstance(topic, Topic):
                    found[topic.name] = topic
        for table in self.tables:
            found |= {topic.name: topic for topic in table.outputs}
        return tuple(found.values())

    def grown(self, partition: int) -> str:
        """Say why a partition cannot be worked on that was not there at the start; "": it can."""
        if not self.width <= partition or not (self.tables or len(self.inputs) > 1):
            return ""
        names = ", ".join(topic.name for topic in self.inputs)
        return (
            f"{names} had {self.width} partitions when the worker started and has more now: keys "
            "are in other partitions than their state in the tables"
        )

    def touches(self, topics: Collection[str]) -> bool:
        """Say whether it reads one of these topics, or logs a table to it."""
        logs = [table.changelog.name for table in self.tables if table.changelog is not None]
        return any(name in topics for name in (*logs, *(topic.name for topic in self.inputs)))

    def policy_of(self, agent: str) -> Policy:
        """Return what an agent does about its exceptions; timers and punctuators stop."""
        named = (node.agent.policy for node in self.nodes if node.agent.name == agent)
        return next(named, Policy(outcome="stop"))

    def makers_of(self, topic: str, source: str | None) -> list[Node]:
        """Return the nodes that read ``source`` and may write to ``topic``.

        All that read it, if none of them is known to.
        """
        readers = [n for n in self.nodes if source is None or source in {t.name for t in n.inputs}]
        return [node for node in readers if topic in node.writes] or readers

    def is_result(self, topic: str) -> bool:
        """Say whether a topic takes the results of a table's windows."""
        emitters = [table.emitter for table in self.tables if table.emitter is not None]
        return any(emitter.topic.name == topic for emitter in emitters)

    def is_dead_letters(self, topic: str) -> bool:
        """Say whether a topic takes the dead letters of one of its inputs."""
        return any(topic == each.dead_letters for each in self.inputs)


class Topology(msgspec.Struct, frozen=True):
    """All sub-topologies of an app.

    Attributes:
        declared: the app's topics: an agent may send to one that is nobody's input or sink.
        globals: the tables that each worker has whole.
    """

    parts: tuple[SubTopology, ...]
    declared: tuple[Topic, ...] = ()
    globals: tuple[Table[Any, Any], ...] = ()

    @property
    def inputs(self) -> dict[str, Topic]:
        """Every topic that is read."""
        return {topic.name: topic for part in self.parts for topic in part.inputs}

    @property
    def topics(self) -> dict[str, Topic]:
        """Every topic that is or may be read or written, changelogs too, dead letters not."""
        found = {topic.name: topic for topic in self.declared} | self.inputs
        found |= {t.source.name: t.source for t in self.globals if t.source is not None}
        for part in self.parts:
            found |= {topic.name: topic for topic in part.outputs}
            found |= {t.changelog.name: t.changelog for t in part.tables if t.changelog is not None}
        return found

    def measured(self, partitions: Mapping[str, int]) -> Topology:
        """Return the topology with its widths.

        Raises:
            ConfigError: inputs that belong together differ in their number of partitions.
        """
        parts = []
        for part in self.parts:
            widths = {topic.name: partitions[topic.name] for topic in part.inputs}
            if len(set(widths.values())) > 1:
                raise ConfigError(not_co_partitioned(part, widths))
            parts.append(msgspec.structs.replace(part, width=next(iter(widths.values()))))
        return Topology(tuple(parts), self.declared, self.globals)


def not_co_partitioned(part: SubTopology, widths: Mapping[str, int]) -> str:
    """Say which topics do not fit, and what to do."""
    agents = ", ".join(dict.fromkeys(node.agent.name for node in part.nodes))
    listed = ", ".join(f"{name} has {count}" for name, count in sorted(widths.items()))
    most = max(widths.values())
    short = next(name for name, count in sorted(widths.items()) if count != most)
    return (
        f"topics that are joined need the same number of partitions, but for {agents} {listed}: "
        f"create {short} anew with `headrace topics create {short} --partitions {most}`, "
        "or re-key the stream with stream.group_by(...)"
    )


def build(
    app_id: str,
    agents: Sequence[Agent],
    tables: Iterable[TableHandle],
    topics: Iterable[Topic] = (),
    punctuators: Sequence[Punctuator] = (),
) -> Topology:
    """Find the sub-topologies of an app."""
    declared = tuple(each for table in tables for each in (table, table.timers) if each is not None)
    handles = tuple(table for table in declared if not table.is_global)
    nodes = [node for agent in agents for node in _nodes(app_id, agent, handles)]
    operators = [each for agent in agents for each in agent.operators.values()]
    elsewhere = [agent for each in operators for agent in each.agents]
    nodes += [node for agent in elsewhere for node in _nodes(app_id, agent, handles)]
    known = {table.name: table for table in handles}
    for name, table in {t.name: t for node in nodes for t in node.tables}.items():
        if known.setdefault(name, table) is not table:
            raise ConfigError(f"there are two tables or operators named {name!r}: rename one")
    groups = _groups(nodes, tuple(known.values()))
    parts = []
    for number, (members, held) in enumerate(groups):
        inputs = {topic.name: topic for node in members for topic in node.inputs}
        inputs |= {t.source.name: t.source for t in held if t.source is not None}
        for table in held:
            table.name_changelog(app_id)
        parts.append(SubTopology(f"{number}", tuple(members), tuple(held), tuple(inputs.values())))
    for punctuator in punctuators:
        _place(punctuator, parts, handles)
    everywhere = tuple(t for t in declared if t.is_global and isinstance(t, Table))
    return Topology(tuple(parts), tuple(topics), everywhere)


def _place(punctuator: Punctuator, parts: list[SubTopology], tables: Sequence[TableHandle]) -> None:
    """Put a punctuator where its tables and its topic are."""
    punctuator.tables = _used([punctuator.fun], punctuator.tables, tables)
    channel = punctuator.channel
    needed = {table.name for table in punctuator.tables}
    homes = [
        number
        for number, part in enumerate(parts)
        if needed & {table.name for table in part.tables} or channel in part.inputs
    ]
    if len(homes) != 1 or not needed <= {table.name for table in parts[homes[0]].tables}:
        raise ConfigError(
            f"punctuator {punctuator.name} needs tables or a topic "
            "(@app.punctuate(ORDERS, ...)) of one sub-topology, used by its agents: "
            f"it has {', '.join(sorted(needed)) or 'no table'} and {channel or 'no topic'}"
        )
    part = parts[homes[0]]
    parts[homes[0]] = msgspec.structs.replace(part, punctuators=(*part.punctuators, punctuator))


def _nodes(app_id: str, agent: Agent, tables: Sequence[TableHandle]) -> list[Node]:
    """Return an agent as one node, or as two with a topic in between."""
    used = tables_used_by(agent, tables)
    move = agent.find_move()
    if move is None:
        return [_node(app_id, agent, "whole", agent.topics, None, used)]
    moved = move.topic or _between(app_id, agent, move)
    return [
        _node(app_id, agent, "before", agent.topics, moved, ()),
        _node(app_id, agent, "after", (moved,), moved, used),
    ]


def _node(
    app_id: str,
    agent: Agent,
    stage: Stage,
    reads: tuple[Topic, ...],
    moved: Topic | None,
    used: tuple[TableHandle, ...],
) -> Node:
    """Return a node with what its operators read and use beyond its own."""
    operators = agent.operators_on(reads[0], moved=stage == "after")
    inputs = {topic.name: topic for topic in reads}
    tables = {table.name: table for table in used}
    for each in operators:
        each.name_topics(app_id)
        inputs |= {topic.name: topic for topic in each.inputs}
        tables |= {table.name: table for table in (*each.uses, each)}
    return Node(agent, stage, tuple(inputs.values()), moved, tuple(tables.values()))


def _between(app_id: str, agent: Agent, move: Move) -> Topic:
    """Name the internal topic of a ``group_by``; it carries what the agent's own topic does."""
    contract: Contract = agent.topics[0].contract
    kind = _type_of(contract.value_type, move.name)
    topic = Topic(
        f"{app_id}-{agent.name}-{move.name}-repartition",
        msgspec.structs.replace(contract, key_type=kind, key_field=None, rules=()),
        internal=True,
    )
    if kind is None:
        topic.key = TEXT_KEYS
    return topic


def _type_of(value_type: Any, field: str) -> Any:
    """Return str, int or bytes where the field is declared as one of them, else None."""
    try:
        kind = typing.get_type_hints(value_type).get(field)
    except (TypeError, NameError, AttributeError):  # no class, or a name that is not to be found
        return None
    return kind if kind in {str, int, bytes} else None


def _groups(
    nodes: Sequence[Node], tables: Sequence[TableHandle]
) -> list[tuple[list[Node], list[TableHandle]]]:
    """Put together what shares a topic or a table, in the order of declaration."""
    owner: dict[str, int] = {}
    groups: dict[int, set[str]] = {}
    for number, node in enumerate(nodes):
        names = {f"topic:{topic.name}" for topic in node.inputs}
        for table in node.tables:
            names.add(f"table:{table.name}")
            if table.source is not None:
                names.add(f"topic:{table.source.name}")
        joined = {owner[name] for name in names if name in owner}
        for other in joined:
            names |= groups.pop(other)
        groups[number] = names
        owner.update(dict.fromkeys(names, number))
    found = []
    for names in sorted(groups.values(), key=lambda names: _first(nodes, names)):
        members = [n for n in nodes if any(f"topic:{topic.name}" in names for topic in n.inputs)]
        held = [table for table in tables if f"table:{table.name}" in names]
        found.append((members, held))
    return found


def _first(nodes: Sequence[Node], names: set[str]) -> int:
    return next(i for i, n in enumerate(nodes) if f"topic:{n.inputs[0].name}" in names)


def tables_used_by(agent: Agent, tables: Sequence[TableHandle]) -> tuple[TableHandle, ...]:
    """Return the tables that an agent names in its code, and those it declares.

    Looks at the globals, closures and module attributes that the function's code mentions, through
    functions of the same module that it calls, and those that the tables' timers do.
    """
    return _used([agent.fun, *agent.calls], agent.tables, tables)


def _used(
    functions: Sequence[Any], given: Sequence[TableHandle], tables: Sequence[TableHandle]
) -> tuple[TableHandle, ...]:
    known = {id(table) for table in tables}
    found: dict[int, TableHandle] = {}
    seen: set[int] = set()
    waiting: list[Any] = [*functions, *reversed(given)]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, TableHandle):
            found[id(each)] = each
            waiting += [] if each.timers is None else [each.timers.fun, each.timers]
        elif hasattr(each, "__code__"):
            for value in _mentioned(each):
                same = inspect.isfunction(value) and value.__module__ == each.__module__
                if same or id(value) in known:
                    waiting.append(value)
    rest = [table for table in found.values() if id(table) not in known and not table.is_global]
    return (*(table for table in tables if id(table) in found), *rest)  # as they were declared


def _mentioned(fun: Any) -> Iterator[Any]:
    """Yield the objects that a function's code can name: globals, closure, module attributes."""
    names = _names(fun.__code__)
    values = [fun.__globals__[name] for name in names if name in fun.__globals__]
    for cell in fun.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell that is not filled yet
            values.append(cell.cell_contents)
    for value in values:
        yield value
        if isinstance(value, types.ModuleType):
            yield from (getattr(value, name, None) for name in names)


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
