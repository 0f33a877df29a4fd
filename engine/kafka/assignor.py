"""Which worker gets which tasks, and which copies of tasks: the consumer group's assignor.

A task is one partition number of all topics of a sub-topology, and goes to one worker whole. The
assignment is balanced over all tasks and sticky: each member says in its subscription which tasks
it has, which it follows as a standby, and of which it has a store on disk; it keeps what it has as
long as that is not more than its share, and what is left goes to whoever needs the least time to
take it over. Standbys go to other workers than their task, in other racks where there are some;
the members are told of theirs in the assignment's user data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

TaskId = tuple[int, int]
"""Number of the topic group, partition."""


class Group(NamedTuple):
    """The inputs of one sub-topology, which are assigned together.

    Attributes:
        stateful: it has tables, so copies of its tasks are worth something.
    """

    topics: tuple[str, ...]
    stateful: bool


class Member(msgspec.Struct):
    """What a worker says of itself when it joins.

    Attributes:
        owned: the tasks it has.
        standbys: the tasks it follows.
        kept: the tasks of which it found a store on its disk when it started.
        rack: where it runs; empty: anywhere.
    """

    owned: list[TaskId] = []
    standbys: list[TaskId] = []
    kept: list[TaskId] = []
    rack: str = ""


class Share(NamedTuple):
    """What a member gets."""

    active: list[TaskId]
    standby: list[TaskId]


_encode = msgspec.msgpack.encode
_decode_tasks = msgspec.msgpack.Decoder(list[TaskId]).decode
_decode_member = msgspec.msgpack.Decoder(Member).decode


class TaskAssignor(AbstractPartitionAssignor):
    """One class per consumer (aiokafka calls class methods): see :func:`assignor_for`."""

    name = "headrace-tasks"
    version = 0
    groups: ClassVar[tuple[Group, ...]] = ()
    replicas: ClassVar[int] = 0
    """Standbys a task."""
    me: ClassVar[Member] = Member()

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return our subscription, with what we have now."""
        return ConsumerProtocolMemberMetadata(cls.version, sorted(topics), _encode(cls.me))

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what we got, for the next subscription."""
        numbers = {t: number for number, group in enumerate(cls.groups) for t in group.topics}
        cls.me.owned = sorted({
            (numbers[topic], partition)
            for topic, partitions in assignment.assignment
            for partition in partitions
            if topic in numbers
        })  # fmt: skip
        cls.me.standbys = _standbys(assignment.user_data)

    @classmethod
    def standbys(cls) -> list[tuple[str, int]]:
        """Return topic and partition of every input whose task we are to follow."""
        return [(t, partition) for g, partition in cls.me.standbys for t in cls.groups[g].topics]

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return every member's partitions (only the group's leader is asked)."""
        widths = [len(cluster.partitions_for_topic(g.topics[0]) or ()) for g in cls.groups]
        tasks = [(g, p) for g, width in enumerate(widths) for p in range(width)]
        said = {member: _said(data.user_data) for member, data in members.items()}
        active = balance(tasks, said)
        stateful = [task for task in tasks if cls.groups[task[0]].stateful]
        standby = place_standbys(stateful, cls.replicas, active, said)
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version, cls._partitions(active[member]), _encode(standby[member])
            )
            for member in members
        }

    @classmethod
    def _partitions(cls, tasks: Sequence[TaskId]) -> list[tuple[str, list[int]]]:
        found: dict[str, list[int]] = defaultdict(list)
        for group, partition in tasks:
            for topic in cls.groups[group].topics:
                found[topic].append(partition)
        return sorted(found.items())


def _said(user_data: bytes | None) -> Member:
    try:
        return _decode_member(user_data or b"")
    except msgspec.DecodeError:
        return Member()  # one that says nothing, or something else, has nothing


def _standbys(user_data: bytes | None) -> list[TaskId]:
    try:
        return _decode_tasks(user_data or b"")
    except msgspec.DecodeError:
        return []


def balance(tasks: Sequence[TaskId], said: Mapping[str, Member]) -> dict[str, list[TaskId]]:
    """Give each member its share: what it has, up to the share, then what is left.

    What is left goes to its standby if that has room, else to whoever has a store of it, else to
    whoever has least. Shares differ by one at most. Deterministic in its arguments, whatever their
    order.
    """
    members = sorted(said)
    least, extra = divmod(len(tasks), len(members))
    free = set(tasks)
    shares: dict[str, list[TaskId]] = {}
    # those who have most keep the larger shares: fewer tasks move
    for member in sorted(members, key=lambda member: (-len(said[member].owned), member)):
        kept = sorted(task for task in said[member].owned if task in free)
        room = least + (1 if extra > 0 and len(kept) > least else 0)
        extra -= room - least
        shares[member] = kept[:room]
        free -= set(shares[member])
    for has in (lambda m: m.standbys, lambda m: m.kept, lambda _: tasks):
        holders = _holders(members, {member: has(said[member]) for member in members})
        for task in sorted(free & holders.keys()):
            most = least + (extra > 0)
            roomy = [member for member in holders[task] if len(shares[member]) < most]
            if roomy:
                member = min(roomy, key=lambda member: (len(shares[member]), member))
                extra -= len(shares[member]) == least
                shares[member].append(task)
                free.discard(task)
    assert not free, "every task has an owner"
    return {member: sorted(shares[member]) for member in members}


def _holders(
    members: Sequence[str], held: Mapping[str, Collection[TaskId]]
) -> dict[TaskId, list[str]]:
    holders: dict[TaskId, list[str]] = defaultdict(list)
    for member in members:
        for task in held[member]:
            holders[task].append(member)
    return holders


def place_standbys(
    tasks: Sequence[TaskId],
    replicas: int,
    active: Mapping[str, Sequence[TaskId]],
    said: Mapping[str, Member],
) -> dict[str, list[TaskId]]:
    """Choose who follows each task: so many others, as far as there are any.

    In this order: even shares, a rack that has no copy yet, a member that has the store already.
    """
    members = sorted(active)
    replicas = min(replicas, len(members) - 1)
    holding = {task: [member] for member, share in active.items() for task in share}
    shares: dict[str, list[TaskId]] = {member: [] for member in members}
    most = -(-len(tasks) * replicas // len(members))
    has = {
        member: {*said[member].owned, *said[member].standbys, *said[member].kept}
        for member in members
    }
    for _ in range(replicas):
        for task in sorted(tasks):
            racks = {said[member].rack for member in holding[task]} - {""}

            def worth(member: str, task: TaskId = task, racks: set[str] = racks) -> Any:
                load = len(shares[member])
                there = said[member].rack in racks
                return load >= most, there, task not in has[member], load, member

            chosen = min((m for m in members if m not in holding[task]), key=worth)
            shares[chosen].append(task)
            holding[task].append(chosen)
    return {member: sorted(share) for member, share in shares.items()}


def assignor_for(
    groups: Iterable[Group], *, replicas: int = 0, rack: str = "", kept: Iterable[TaskId] = ()
) -> type[TaskAssignor]:
    """Return an assignor class of one consumer's own."""
    own = {
        "groups": tuple(groups),
        "replicas": replicas,
        "me": Member(kept=sorted(kept), rack=rack),
    }
    return type("TaskAssignor", (TaskAssignor,), own)
