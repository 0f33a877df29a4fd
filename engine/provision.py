"""The topics that must be there before a worker starts: created where missing, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.edges import Admin
    from engine.topology import Topology


async def provide(topology: Topology, admin: Admin) -> tuple[Topology, dict[str, int]]:
    """Create what is missing; check that what is joined has equal partitions.

    Returns the topology, measured, and how many partitions each topic has.

    Raises:
        ConfigError: topics are missing or not co-partitioned; the message names the fix.
        BrokerError: no broker answers.
    """
    await _create_inputs(topology, admin)
    await _create_moves(topology, admin)
    await _create_between(topology, admin)
    topology = topology.measured(await admin.partitions(list(topology.inputs)))
    internal = []
    for part in topology.parts:
        logs = [table.changelog for table in part.tables if table.changelog is not None]
        internal += [changelog.sized(part.width) for changelog in logs]
        internal += [topic.dead_letter_topic(part.width) for topic in part.inputs]
        internal += part.outputs
    await admin.create([*internal, *topology.declared])
    names = [*topology.topics, *(t.dead_letters for t in topology.inputs.values())]
    partitions = await admin.partitions(names)
    for part in topology.parts:
        for table in part.tables:
            if table.changelog is not None:
                _check_changelog(table.changelog.name, part.width, partitions)
    return topology, partitions


async def _create_inputs(topology: Topology, admin: Admin) -> None:
    """Create missing inputs, with as many partitions as what they are joined with has."""
    inputs = [topic for topic in topology.inputs.values() if not topic.internal]
    known = await admin.partitions([topic.name for topic in inputs])
    for part in topology.parts:
        widths = {known[topic.name] for topic in part.inputs if topic.name in known}
        for topic in part.inputs:
            if len(widths) == 1 and topic.name not in known and not topic.config.partitions:
                topic.sized(*widths)
    await admin.create(inputs)


async def _create_moves(topology: Topology, admin: Admin) -> None:
    """Create the topics of ``group_by``: as many partitions as what they are joined with has.

    What is joined with nothing has as many as what flows into it.
    """
    readers = {topic.name: part.inputs for part in topology.parts for topic in part.inputs}
    for part in topology.parts:
        for node in part.nodes:
            if node.stage == "before" and node.moved is not None:
                beside = [topic for topic in readers[node.moved.name] if not topic.internal]
                like = beside or node.inputs
                widths = await admin.partitions([topic.name for topic in like])
                if node.moved.internal:
                    node.moved.sized(max(widths.values()))
                await admin.create([node.moved])


async def _create_between(topology: Topology, admin: Admin) -> None:
    """Create the other internal inputs: as many partitions as what they are read with has."""
    moved = {node.moved for part in topology.parts for node in part.nodes}
    for part in topology.parts:
        internal = [each for each in part.inputs if each.internal and each not in moved]
        if internal:
            known = await admin.partitions([topic.name for topic in part.inputs])
            widest = max(known.values(), default=0)
            missing = [each for each in internal if widest and each.name not in known]
            await admin.create([topic.sized(widest) for topic in missing])


def _check_changelog(name: str, width: int, partitions: dict[str, int]) -> None:
    if partitions.get(name) != width:
        raise ConfigError(
            f"changelog {name} has {partitions.get(name)} partitions but its task's inputs have "
            f"{width}: the inputs were re-partitioned. Give the app a new id, or delete the "
            "changelog and let the table be built anew"
        )
