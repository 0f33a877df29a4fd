"""The engine's edges: everything it asks of the world outside. Each is handed in.

On Kafka they are :mod:`engine.kafka`; in the Driver they are :mod:`engine.testing.memory`. The code
between them is the same, so what a test sees is what a worker does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )

    from engine.clock import Clock
    from engine.record import TP, Batch, Fetched, Headers, Output
    from engine.topic import Topic
    from tables.store import Store


class Position(NamedTuple):
    """A committed offset, and what the engine keeps beside it (see :mod:`engine.position`)."""

    offset: int
    metadata: str


class Transaction(NamedTuple):
    """All that one commit makes visible, or nothing of it.

    Attributes:
        rows: the records, by partition: outputs, dead letters, changelogs.
        positions: the input offsets that they stand for.
        membership: the group membership under which the work was done; a coordinator that has
            given the partitions to somebody else refuses it.
        task: whose work it is (of several: the first one's).
    """

    rows: Mapping[TP, list[Output]]
    positions: Mapping[TP, Position]
    membership: Any
    task: str = ""


class Assigned(NamedTuple):
    """What the group gives a worker.

    Attributes:
        active: the inputs that it is to read, and nobody else.
        standby: inputs whose tasks it is to keep a copy of.
        membership: what proves that it is so.
    """

    active: frozenset[TP]
    standby: frozenset[TP]
    membership: Any


class Source(Protocol):
    """The consumer group's side: which partitions are ours, and their records."""

    async def start(
        self,
        topics: Collection[str],
        *,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Assigned], None],
    ) -> None:
        """Join the group. ``revoked`` is awaited before a rebalance, ``assigned`` told after it."""
        ...

    async def poll(self, timeout_ms: int, *, full: Collection[TP]) -> Sequence[Fetched]:
        """Return what has come, at most one piece a partition; leave ``full`` ones alone."""
        ...

    def wake(self) -> None:
        """Make a poll that waits return at once."""
        ...

    def membership(self) -> Any:
        """Return what proves that we own our partitions (member id and generation)."""
        ...

    async def positions(self, tps: Collection[TP]) -> dict[TP, Position | None]:
        """Return the committed positions, waiting for transactions that are still open."""
        ...

    def ask_for(self, partition_bytes: int) -> None:
        """Ask for so many bytes of a partition at a time, from now."""
        ...

    def seek(self, tp: TP, offset: int) -> None:
        """Read ``tp`` from ``offset`` on, from now."""
        ...

    def end(self, tp: TP) -> int | None:
        """Return the last known end of ``tp`` (as a reader of committed records sees it)."""
        ...

    async def close(self) -> None:
        """Leave the group."""
        ...


class Outlet(Protocol):
    """The producer's side."""

    transactional: bool
    per_task: bool
    """Whether each task's work is a transaction of its own."""

    async def open(self) -> None:
        """Become the one and only producer of our id: older ones are fenced from here on."""
        ...

    async def own(self, tasks: Collection[str]) -> None:
        """Become the one and only producer of these tasks, where each has one of its own.

        It comes before their positions are read: whoever had them can commit nothing from here on.
        """
        ...

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """Make ``transaction`` visible; return, per partition, the offset after its last record.

        Raises:
            CommitRefused: nothing of it is visible, and never will be.
            CommitUnknown: it may be visible; only ``open`` and the committed positions tell.
            RecordRefused: nothing is visible: a record is not acceptable to the broker.
        """
        ...

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        """Send one record outside of any transaction (timers, commands, pages)."""
        ...

    async def close(self) -> None:
        """Give up; what is not committed is not visible."""
        ...


class Log(Protocol):
    """Reading partitions by hand, committed records only: how changelogs are restored."""

    async def bounds(
        self, tps: Collection[TP], *, stable: bool = False
    ) -> dict[TP, tuple[int, int]]:
        """Return the first offset and the end of each partition.

        Args:
            stable: the end is the last stable offset, which no open transaction holds up; else it
                is the high watermark.
        """
        ...

    def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[Batch]:
        """Yield the committed records in [start, end) of each partition, as they come.

        Ends when every position is at its end.
        """
        ...

    async def close(self) -> None:
        """Release the connection."""
        ...


class Admin(Protocol):
    """The cluster's topics."""

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Return how many partitions each topic has; unknown topics are absent."""
        ...

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return what tells a topic from an earlier one of its name, where the broker says it."""
        ...

    async def create(self, topics: Iterable[Topic]) -> list[str]:
        """Create those that do not exist; return their names."""
        ...

    async def close(self) -> None:
        """Release the connection."""
        ...


class Edges(NamedTuple):
    """All of them."""

    clock: Clock
    source: Source
    outlet: Outlet
    log: Log
    admin: Admin
    open_store: Callable[[str, Collection[str]], Store]
    """Takes a task's id and its families."""
