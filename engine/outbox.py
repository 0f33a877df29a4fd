"""What a task has emitted and not yet committed: encoded records, one list a partition.

Nothing is sent before the commit. The transaction is then short (it opens when everything in it
is known), a task that is not ready can be left out of it, and dropping work is dropping lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.partitioner import partitioner_for
from engine.record import TP

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.record import Headers, Output


ROW_BYTES = 200
"""What Python's objects of a row take beside its bytes."""


class Lane:
    """The outputs of a task for one topic."""

    __slots__ = ("home", "partitioner", "rows", "topic")

    def __init__(self, topic: str, partitions: int, home: int | None) -> None:
        self.topic = topic
        self.home = home  # the task's own partition, where the topic has as many as its inputs
        self.partitioner = partitioner_for(partitions)
        self.rows: list[list[Output]] = [[] for _ in range(partitions)]

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Headers = (),
        *,
        source_key: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Add a record.

        A key that came in on the task's partition goes out on it, where the topics are
        co-partitioned: no hash, and right even if the producer chose partitions its own way.
        """
        if partition is None:
            if self.home is not None and (key is None or key == source_key):
                partition = self.home
            elif key is None:
                partition = 0
            else:
                partition = self.partitioner[key]
        self.rows[partition].append((key, value, timestamp, headers))


class Outbox:
    """All lanes of a task.

    Args:
        partition: the task's partition.
        width: how many partitions the task's inputs have.
        partitions_of: how many partitions a topic has.
    """

    __slots__ = ("_lanes", "_partition", "_partitions_of", "_width")

    def __init__(self, partition: int, width: int, partitions_of: Callable[[str], int]) -> None:
        self._partition = partition
        self._width = width
        self._partitions_of = partitions_of
        self._lanes: dict[str, Lane] = {}

    def lane(self, topic: str) -> Lane:
        """Return the lane to ``topic``; it stays the same object for the outbox's life."""
        lane = self._lanes.get(topic)
        if lane is None:
            partitions = self._partitions_of(topic)
            fits = partitions == self._width and self._partition < partitions  # else it has grown
            home = self._partition if fits else None
            lane = self._lanes[topic] = Lane(topic, partitions, home)
        return lane

    def pending(self) -> int:
        """Return how many records wait."""
        return sum(len(rows) for lane in self._lanes.values() for rows in lane.rows)

    def bytes(self) -> int:
        """Return about how much memory they take: the last of a lane stands for the others."""
        held = 0
        for lane in self._lanes.values():
            for rows in lane.rows:
                if rows:
                    key, value, *_ = rows[-1]
                    held += len(rows) * (ROW_BYTES + len(key or b"") + len(value or b""))
        return held

    def cut(self) -> dict[TP, list[Output]]:
        """Take everything out."""
        taken: dict[TP, list[Output]] = {}
        for lane in self._lanes.values():
            for partition, rows in enumerate(lane.rows):
                if rows:
                    taken[TP(lane.topic, partition)] = rows
                    lane.rows[partition] = []
        return taken
