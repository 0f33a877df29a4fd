"""The engine's edges in memory: a broker with topics, transactions and one consumer group.

It keeps what a test relies on: records of a transaction and its offsets become visible together or
not at all, offsets have gaps where transaction markers lie, an older producer of the same id is
fenced, and stores and topics outlive a crash of the worker while everything else does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from engine.edges import Assigned, Edges, Position, Transaction
from engine.errors import CommitRefused
from engine.partitioner import partitioner_for
from engine.record import TP, Batch, Headers, Output
from engine.topic import Topic
from tables.memory import MemoryStore


class HandClock:
    """A clock that only moves when a test moves it."""

    def __init__(self, start_ms: int = 0) -> None:
        self._now = start_ms
        self._calls: list[tuple[float, int, _Call]] = []
        self._count = 0

    def now_ms(self) -> int:
        """Return the time that was set."""
        return self._now

    def elapsed_ms(self) -> float:
        """Return the same."""
        return float(self._now)

    def call_later(self, delay_ms: float, call: Callable[[], None]) -> _Call:
        """Call ``call`` when the clock is moved so far."""
        pending = _Call(call)
        self._count += 1
        heappush(self._calls, (self._now + delay_ms, self._count, pending))
        return pending

    def next_call_ms(self) -> float | None:
        """Return when the next call is due."""
        while self._calls and self._calls[0][2].cancelled:
            heappop(self._calls)
        return self._calls[0][0] if self._calls else None

    def move_to(self, now_ms: int) -> None:
        """Move on, making the calls that are due at exactly this time or before."""
        self._now = max(self._now, now_ms)
        while (due := self.next_call_ms()) is not None and due <= self._now:
            heappop(self._calls)[2].call()


class _Call:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class MemoryBroker:
    """Topics, committed offsets and stores: all that survives a crash.

    Args:
        partitions: of topics that do not say how many they want.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.logs: dict[TP, list[Output | None]] = {}  # None: a transaction marker
        self.counts: dict[str, int] = {}
        self.committed: dict[TP, Position] = {}
        self.stores: dict[str, MemoryStore] = {}
        self.epoch = 0
        self.begins: dict[TP, int] = {}  # the first offset that is still there, where not 0
        self.ids: dict[str, str] = {}  # of topics
        self.order: list[tuple[TP, int]] = []  # every record, in the order it became visible

    def create(self, name: str, partitions: int | None = None) -> None:
        """Create a topic if it is not there."""
        if name not in self.counts:
            self.counts[name] = partitions or self.partitions
            for number in range(self.counts[name]):
                self.logs[TP(name, number)] = []

    def append(self, tp: TP, output: Output) -> int:
        """Add one record; return its offset."""
        log = self.logs[tp]
        log.append(output)
        self.order.append((tp, len(log) - 1))
        return len(log) - 1

    def produce(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp: int,
        headers: Headers = (), partition: int | None = None,
    ) -> TP:  # fmt: skip
        """Add a record from outside; a key chooses its partition as Kafka's clients do."""
        self.create(topic)
        if partition is None:
            partition = 0 if key is None else partitioner_for(self.counts[topic])[key]
        tp = TP(topic, partition)
        self.append(tp, (key, value, timestamp, headers))
        return tp

    def batch(self, tp: TP, start: int, end: int | None = None) -> Batch:
        """Return the records from ``start`` on."""
        log = self.logs[tp]
        stop = len(log) if end is None else min(end, len(log))
        batch = Batch(tp, stop)
        for offset in range(max(start, self.begins.get(tp, 0)), stop):
            record = log[offset]
            if record is not None:
                batch.offsets.append(offset)
                batch.keys.append(record[0])
                batch.values.append(record[1])
                batch.timestamps.append(record[2])
                batch.headers.append(record[3])
        return batch


class MemorySource:
    """The consumer group, of which the one worker is the only member."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._at: dict[TP, int] = {}
        self._woken = asyncio.Event()

    async def start(
        self,
        topics: Collection[str],
        *,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Assigned], None],
    ) -> None:
        """Be given every partition."""
        await revoked()
        every = frozenset(TP(t, n) for t in topics for n in range(self._broker.counts[t]))
        assigned(Assigned(every, frozenset(), self.membership()))

    async def poll(self, timeout_ms: int, *, full: Collection[TP]) -> list[Batch]:
        """Return what there is; never wait."""
        batches = []
        for tp, position in self._at.items():
            if tp not in full and position < len(self._broker.logs[tp]):
                batch = self._broker.batch(tp, position)
                self._at[tp] = batch.next_offset
                batches.append(batch)
        return batches

    def wake(self) -> None:
        """Nothing waits here."""

    def membership(self) -> int:
        """Return the same always: nobody else is here."""
        return 1

    async def positions(self, tps: Collection[TP]) -> dict[TP, Position | None]:
        """Return the committed positions."""
        return {tp: self._broker.committed.get(tp) for tp in tps}

    def ask_for(self, partition_bytes: int) -> None:
        """Nothing is fetched: what is there is polled whole."""

    def seek(self, tp: TP, offset: int) -> None:
        """Read from ``offset`` on."""
        self._at[tp] = offset

    def end(self, tp: TP) -> int | None:
        """Return where the partition ends."""
        return len(self._broker.logs[tp])

    async def close(self) -> None:
        """Read no more."""
        self._at.clear()


class MemoryOutlet:
    """The producer. Opening a second one fences the first."""

    transactional = True
    per_task = False

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._epoch = -1

    async def open(self) -> None:
        """Take the id over."""
        self._broker.epoch += 1
        self._epoch = self._broker.epoch

    async def own(self, tasks: Collection[str]) -> None:
        """The one producer is every task's."""

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """Make everything visible in one step."""
        broker = self._broker
        if self._epoch != broker.epoch:
            raise CommitRefused("a newer producer has this id")
        ends: dict[TP, int] = {}
        for tp, rows in transaction.rows.items():
            for row in rows:
                ends[tp] = broker.append(tp, row) + 1
            broker.logs[tp].append(None)
        broker.committed |= transaction.positions
        return ends

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        """Add one record at once."""
        self._broker.produce(topic, key, value, timestamp or 0, headers, partition)

    async def close(self) -> None:
        """Nothing is open."""


class MemoryLog:
    """Reading by hand."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def bounds(
        self, tps: Collection[TP], *, stable: bool = False
    ) -> dict[TP, tuple[int, int]]:
        """Return the bounds of each partition; no transaction is ever open here."""
        begins = self._broker.begins
        return {tp: (begins.get(tp, 0), len(self._broker.logs[tp])) for tp in tps}

    async def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[Batch]:
        """Yield a batch a partition."""
        for tp, (start, end) in spans.items():
            if start < end:
                yield self._broker.batch(tp, start, end)

    async def close(self) -> None:
        """Nothing is open."""


class MemoryAdmin:
    """The topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Return how many partitions each topic has."""
        counts: Mapping[str, int] = self._broker.counts
        return {topic: counts[topic] for topic in topics if topic in counts}

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Return the ids that a test has given out."""
        return {topic: self._broker.ids[topic] for topic in topics if topic in self._broker.ids}

    async def create(self, topics: Iterable[Topic]) -> list[str]:
        """Create what is missing, with the test's number of partitions unless it must fit."""
        created = []
        for topic in topics:
            if topic.name not in self._broker.counts:
                self._broker.create(topic.name, topic.config.partitions if topic.fitted else None)
                created.append(topic.name)
        return created

    async def close(self) -> None:
        """Nothing is open."""


def memory_edges(broker: MemoryBroker, clock: Any) -> Edges:
    """Return the edges of a worker on ``broker``."""

    def open_store(task: str, _: Collection[str]) -> MemoryStore:
        return broker.stores.setdefault(task, MemoryStore())

    return Edges(
        clock=clock,
        source=MemorySource(broker),
        outlet=MemoryOutlet(broker),
        log=MemoryLog(broker),
        admin=MemoryAdmin(broker),
        open_store=open_store,
    )
