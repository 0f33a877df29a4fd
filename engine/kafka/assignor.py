"""Which worker gets which tasks: the consumer group's assignor.

A task is one partition number of all topics of a sub-topology, and goes to one worker whole. The
assignment is balanced over all tasks and sticky: each member says in its subscription which tasks
it has, and keeps them as long as that is not more than its share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

TaskId = tuple[int, int]
"""Number of the topic group, partition."""


class TaskAssignor(AbstractPartitionAssignor):
    """One class per consumer (aiokafka calls class methods): see :func:`assignor_for`."""

    name = "headrace-tasks"
    version = 0
    groups: ClassVar[tuple[tuple[str, ...], ...]] = ()
    owned: ClassVar[list[TaskId]] = []

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return our subscription, with the tasks we have now."""
        return ConsumerProtocolMemberMetadata(
            cls.version, sorted(topics), msgspec.msgpack.encode(sorted(cls.owned))
        )

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what we got, for the next subscription."""
        numbers = {topic: number for number, group in enumerate(cls.groups) for topic in group}
        cls.owned = sorted({
            (numbers[topic], partition)
            for topic, partitions in assignment.assignment
            for partition in partitions
            if topic in numbers
        })  # fmt: skip

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return every member's partitions (only the group's leader is asked)."""
        widths = [len(cluster.partitions_for_topic(group[0]) or ()) for group in cls.groups]
        tasks = [(g, p) for g, width in enumerate(widths) for p in range(width)]
        owned = {member: _owned(data.user_data) for member, data in members.items()}
        shares = balance(tasks, owned)
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, cls._partitions(share), b"")
            for member, share in shares.items()
        }

    @classmethod
    def _partitions(cls, tasks: Sequence[TaskId]) -> list[tuple[str, list[int]]]:
        found: dict[str, list[int]] = defaultdict(list)
        for group, partition in tasks:
            for topic in cls.groups[group]:
                found[topic].append(partition)
        return sorted(found.items())


def _owned(user_data: bytes | None) -> list[TaskId]:
    try:
        return msgspec.msgpack.decode(user_data or b"", type=list[TaskId])
    except msgspec.DecodeError:
        return []  # a member that says nothing, or something else, owns nothing


def balance(
    tasks: Sequence[TaskId], owned: Mapping[str, Sequence[TaskId]]
) -> dict[str, list[TaskId]]:
    """Give each member its share: what it has, up to the share, then what is left.

    Shares differ by one at most. Deterministic in its arguments, whatever their order.
    """
    members = sorted(owned)
    least, extra = divmod(len(tasks), len(members))
    free = set(tasks)
    shares: dict[str, list[TaskId]] = {}
    # those who have most keep the larger shares: fewer tasks move
    for member in sorted(members, key=lambda member: (-len(owned[member]), member)):
        kept = sorted(task for task in owned[member] if task in free)
        room = least + (1 if extra > 0 and len(kept) > least else 0)
        extra -= room - least
        shares[member] = kept[:room]
        free -= set(shares[member])
    for task in sorted(free):
        member = min(members, key=lambda member: (len(shares[member]), member))
        shares[member].append(task)
    return {member: sorted(shares[member]) for member in members}


def assignor_for(groups: Iterable[Iterable[str]]) -> type[TaskAssignor]:
    """Return an assignor class of one consumer's own."""
    return type("TaskAssignor", (TaskAssignor,), {"groups": tuple(map(tuple, groups)), "owned": []})
