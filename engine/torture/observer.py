"""Looks at what a run left on the broker: aiokafka's client, and no code of the engine.

Records are fetched by hand, so that each comes with the producer that wrote it, which aiokafka's
consumer keeps to itself.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code
from aiokafka.partitioner import murmur2
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record import MemoryRecords
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

TABLES = ("counts", "login-to-purchase", "sessions", "unmatched")
FETCH_BYTES = 4 << 20
EARLIEST = -2
SEND_AHEAD = 5_000
"""So many records are sent before their answers are looked at."""


UNREACHABLE = (KafkaError, OSError)
"""What reading raises while a broker is away."""


class Record(NamedTuple):
    """One committed record, and who wrote it: producer id and epoch."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: dict[str, bytes]
    producer: tuple[int, int] = (-1, -1)


@dataclass
class Seen:
    """Everything that a reader of committed records finds."""

    topics: dict[str, list[Record]] = field(default_factory=dict)

    def json(self, topic: str) -> list[dict[str, Any]]:
        """Return a topic's values as dicts."""
        return [json.loads(record.value) for record in self.topics[topic] if record.value]

    def latest(self, topic: str) -> dict[tuple[int, bytes], bytes]:
        """Return what compaction would leave: the last value of each key, tombstones gone."""
        last: dict[tuple[int, bytes], bytes] = {}
        for record in self.topics[topic]:
            assert record.key is not None
            if record.value is None:
                last.pop((record.partition, record.key), None)
            else:
                last[record.partition, record.key] = record.value
        return last


# --- topics -----------------------------------------------------------------------------------


async def create(
    bootstrap: str, topics: Mapping[str, dict[str, str]], partitions: int, replicas: int = 1
) -> None:
    """Create topics with settings."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(name, partitions, replicas, topic_configs=extra)
                for name, extra in topics.items()
            ]
        )
    finally:
        await admin.close()


async def produce(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None, int]],
    partitions: int,
) -> list[int]:
    """Send (key, value, timestamp) records, in order; return each one's partition."""
    async with feeding(bootstrap, topic, partitions) as feed:
        await feed.send(records)
    return feed.placed


class Feed:
    """Sends records to a topic, each key to its own partition, as Kafka's own clients do."""

    def __init__(self, producer: Any, topic: str, partitions: int) -> None:
        self.placed: list[int] = []
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._memo: dict[bytes, int] = {}

    def _place(self, key: bytes | None) -> int:
        if key is None:
            return len(self.placed) % self._partitions
        partition = self._memo.get(key)
        if partition is None:
            partition = self._memo[key] = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        return partition

    async def send(self, records: Iterable[tuple[bytes | None, bytes | None, int]]) -> None:
        """Send records, and return when all of them are acknowledged."""
        waiting = []
        for key, value, timestamp in records:
            partition = self._place(key)
            self.placed.append(partition)
            waiting.append(
                await self._producer.send(
                    self._topic, value, key, partition, timestamp_ms=timestamp, headers=[]
                )
            )
            if len(waiting) >= SEND_AHEAD:
                await _all(waiting)
        await _all(waiting)


async def _all(waiting: list[Any]) -> None:
    for future in waiting:
        await future
    waiting.clear()


@asynccontextmanager
async def feeding(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[Feed]:
    """Open a :class:`Feed`; it is idempotent: a retry must not double or reorder the input."""
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1 << 18, enable_idempotence=True
    ) as producer:
        yield Feed(producer, topic, partitions)


async def committed(bootstrap: str, group: str, topic: str, partitions: int) -> dict[int, int]:
    """Return the group's committed offsets of a topic (-1: none)."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        try:
            found = await admin.list_consumer_group_offsets(group, partitions=tps)
        except GroupCoordinatorNotAvailableError:  # the first group of a young broker
            return {}
        return {tp.partition: at.offset for tp, at in found.items()}
    finally:
        await admin.close()


class End(NamedTuple):
    """Where a partition ends: for readers of committed records (the last stable offset), and all.

    They differ while a transaction is open.
    """

    stable: int
    high: int


async def ends(bootstrap: str, tps: Collection[tuple[str, int]]) -> dict[tuple[str, int], End]:
    """Return where partitions end now."""
    found = []
    for isolation in ("read_committed", "read_uncommitted"):
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level=isolation, enable_auto_commit=False
        ) as consumer:
            found.append(await consumer.end_offsets([TopicPartition(*tp) for tp in tps]))
    return {(tp.topic, tp.partition): End(at, found[1][tp]) for tp, at in found[0].items()}


async def widths(bootstrap: str, topics: Iterable[str]) -> dict[str, int]:
    """Return how many partitions topics have; those that are not there are left out."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        found = {topic: cluster.partitions_for_topic(topic) for topic in topics}
        return {topic: len(partitions) for topic, partitions in found.items() if partitions}
    finally:
        await client.close()


# --- reading ----------------------------------------------------------------------------------


async def observe(
    bootstrap: str,
    topics: Iterable[str],
    isolation: str = "read_committed",
    *,
    partitions: Collection[int] | None = None,
) -> Seen:
    """Read topics whole, up to where they end now.

    Args:
        isolation: ``read_uncommitted`` shows what was aborted too.
        partitions: only these.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        tail = Tail(client, isolation)
        await tail.add(topics, partitions)
        return await tail.more()
    finally:
        await client.close()


@asynccontextmanager
async def following(bootstrap: str, topic: str, partitions: Collection[int]) -> AsyncIterator[Tail]:
    """Open a :class:`Tail` of a topic's partitions."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        tail = Tail(client)
        await tail.add([topic], partitions)
        yield tail
    finally:
        await client.close()


class Tail:
    """Reads partitions from their beginning on, and later what has come since."""

    def __init__(self, client: Any, isolation: str = "read_committed") -> None:
        self._client = client
        self._isolation = int(isolation == "read_committed")
        self._topics: list[str] = []
        self._positions: dict[tuple[str, int], int] = {}

    async def add(self, topics: Iterable[str], partitions: Collection[int] | None) -> None:
        """Read these too; None: every partition."""
        for topic in topics:
            await self._client._wait_on_metadata(topic)
            there = self._client.cluster.partitions_for_topic(topic) or set()
            wanted = {(topic, n) for n in there if partitions is None or n in partitions}
            first = await self._beginnings(wanted)
            self._positions |= first
            self._topics.append(topic)

    async def _beginnings(self, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where partitions begin: retention may have taken their first records."""
        found = {}
        for topic, partition in places:
            node = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
            request = OffsetRequest(-1, 0, [(topic, [(partition, EARLIEST)])])
            [[_, [[_, code, *_, offset]]]] = (await self._client.send(node, request)).topics
            if code:
                raise for_code(code)(f"{topic}[{partition}]")
            found[topic, partition] = offset
        return found

    async def more(self) -> Seen:
        """Return what there is beyond the last call, each topic by partition and offset."""
        seen = Seen({topic: [] for topic in self._topics})
        left = set(self._positions)
        while left:
            wanted = {place: self._positions[place] for place in left}
            for place, records, at, end in await _fetch(self._client, wanted, self._isolation):
                seen.topics[place[0]] += records
                self._positions[place] = at
                if at >= end:
                    left.discard(place)
        for records in seen.topics.values():
            records.sort(key=lambda record: (record.partition, record.offset))
        return seen


_Answer = tuple[tuple[str, int], list[Record], int, int]


async def _fetch(
    client: Any, positions: Mapping[tuple[str, int], int], isolation: int
) -> list[_Answer]:
    """Fetch once from each leader: partition, records, next position, and where it ends."""
    by_node: dict[int, dict[str, list[tuple[int, int, int]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for tp, at in positions.items():
        node = client.cluster.leader_for_partition(TopicPartition(*tp))
        by_node[node][tp[0]].append((tp[1], at, FETCH_BYTES))
    answers: list[_Answer] = []
    for node, topics in by_node.items():
        request = FetchRequest(20, 1, 8 * FETCH_BYTES, isolation, list(topics.items()))
        response = await client.send(node, request)
        for topic, parts in response.topics:
            for partition, code, high, stable, *_, aborted, data in _plain(response, parts):
                if code:
                    raise for_code(code)(f"{topic}[{partition}]")
                start = positions[topic, partition]
                records, at = _unpack(partition, start, data, aborted)
                end = stable if isolation else high
                answers.append(((topic, partition), records, at, end))
    return answers


def _plain(response: Any, parts: Iterable[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
    """Drop the preferred replica, which version 11 has put before the records."""
    if response.API_VERSION < 11:  # noqa: PLR2004
        return parts
    return [(*part[:-2], part[-1]) for part in parts]


def _unpack(
    partition: int, start: int, data: bytes, aborted: list[tuple[int, int]] | None
) -> tuple[list[Record], int]:
    """Return the committed records of one answer from ``start`` on, and where the next begins.

    As Kafka's consumer does it: an aborted transaction reaches from its first offset to its abort
    marker in the producer's batches.
    """
    memory = MemoryRecords(data)
    open_aborts = sorted(aborted or [], key=lambda each: each[1])
    gone: set[int] = set()
    records: list[Record] = []
    at = start
    while memory.has_next():
        batch = memory.next_batch()
        while open_aborts and open_aborts[0][1] <= batch.base_offset:
            gone.add(open_aborts.pop(0)[0])
        if batch.is_control_batch:
            if ControlRecord.parse(next(iter(batch)).key) == ABORT_MARKER:
                gone.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in gone):
            producer = (batch.producer_id, batch.producer_epoch)
            records += [
                Record(partition, r.offset, r.key, r.value, r.timestamp, dict(r.headers), producer)
                for r in batch
                if r.offset >= start
            ]
        at = max(at, batch.next_offset)
    return records, at


# --- what the job's topics say ----------------------------------------------------------------


def sessions_in(seen: Seen, app: str) -> Counter[tuple[Any, ...]]:
    """Return every session once: those that were emitted, and those still in the table."""
    found = Counter(
        (s["user_id"], s["start"], s["end"], s["events"], s["page_views"], s["total_time"])
        for s in seen.json("user-sessions")
    )
    for (_, key), value in seen.latest(f"{app}-sessions-changelog").items():
        found.update(live_sessions(key, value))
    return found


def live_sessions(key: bytes, value: bytes) -> list[tuple[Any, ...]]:
    """Return a table entry's sessions: user, start, end, events, page views, time."""
    rows = []
    for start, end, totals in msgspec.msgpack.decode(value):
        events, views, time = totals.values() if isinstance(totals, dict) else totals
        rows.append((key.decode(), start, end, events, views, time))
    return rows


def counts_in(seen: Seen, app: str) -> Counter[tuple[str, str, int]]:
    """Return every minute's counts: those that were emitted, and those still in the table.

    A window that is both would be counted twice, and a check against the recomputation fails.
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for row in seen.json("event-counts"):
        found[row["user_id"], row["event_type"], row["start"]] += row["count"]
    for (_, key), value in seen.latest(f"{app}-counts-changelog").items():
        window, count = live_count(key, value)
        found[window] += count
    return found


def live_count(key: bytes, value: bytes) -> tuple[tuple[str, str, int], int]:
    """Return a table entry's window (user, event type, start in ms) and its count."""
    start = int.from_bytes(key[:8], "big") - (1 << 63)
    user, kind = msgspec.msgpack.decode(key[8:])
    return (user, kind, start), msgspec.msgpack.decode(value)[1]
