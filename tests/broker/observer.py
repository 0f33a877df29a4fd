"""Looks at what a run left on the broker, with plain aiokafka and no code of the engine."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiokafka
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

TABLES = ("counts", "sessions", "unmatched")


@dataclass
class Record:
    """One committed record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: dict[str, bytes]


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


async def create(
    bootstrap: str, topics: dict[str, dict[str, str]], partitions: int, replicas: int = 1
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


async def produce(bootstrap: str, topic: str, records: Any, partitions: int) -> list[int]:
    """Send (key, value, timestamp) records, in order; return each one's partition."""
    placed: list[int] = []
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        linger_ms=5,
        max_batch_size=1 << 18,
        enable_idempotence=True,  # a retry must not double or reorder the input
    ) as producer:
        memo: dict[bytes, int] = {}
        last = []
        for number, (key, value, timestamp) in enumerate(records):
            if key is None:
                partition = number % partitions
            else:
                partition = memo.get(key, -1)
                if partition < 0:
                    hashed = aiokafka.partitioner.murmur2(key) & 0x7FFFFFFF
                    partition = memo[key] = hashed % partitions
            placed.append(partition)
            last.append(
                await producer.send(
                    topic, value, key, partition, timestamp_ms=timestamp, headers=[]
                )
            )
            if len(last) >= 5000:
                for future in last:
                    await future
                last.clear()
        for future in last:
            await future
    return placed


async def observe(bootstrap: str, topics: list[str], isolation: str = "read_committed") -> Seen:
    """Read topics whole, committed records only, up to where they end now."""
    seen = Seen({topic: [] for topic in topics})
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    ) as consumer:
        await consumer._client.force_metadata_update()
        tps = []
        for topic in topics:
            await consumer._client._wait_on_metadata(topic)
            tps += [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        left = {tp for tp in tps if ends[tp] > 0}
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                seen.topics[tp.topic] += [
                    Record(r.partition, r.offset, r.key, r.value, r.timestamp, dict(r.headers))
                    for r in records
                ]
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    return seen


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


def sessions_in(seen: Seen, app: str) -> Counter[tuple[Any, ...]]:
    """Return every session once: those that were emitted, and those still in the table."""
    found = Counter(
        (s["user_id"], s["start"], s["end"], s["events"], s["page_views"], s["total_time"])
        for s in seen.json("user-sessions")
    )
    for (_, key), value in seen.latest(f"{app}-sessions-changelog").items():
        for start, end, (events, views, time) in (
            (s, e, tuple(v.values()) if isinstance(v, dict) else v)
            for s, e, v in msgspec.msgpack.decode(value)
        ):
            found[key.decode(), start, end, events, views, time] += 1
    return found


def counts_in(seen: Seen, app: str) -> Counter[tuple[str, str, int]]:
    """Return every minute's counts: those that were emitted, and those still in the table.

    A window that is both would be counted twice, and a check against the recomputation fails.
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for row in seen.json("event-counts"):
        found[row["user_id"], row["event_type"], row["start"]] += row["count"]
    for (_, key), value in seen.latest(f"{app}-counts-changelog").items():
        start = int.from_bytes(key[:8], "big") - (1 << 63)
        user, kind = msgspec.msgpack.decode(key[8:])
        found[user, kind, start] += msgspec.msgpack.decode(value)[1]
    return found
