"""What the benchmarks do with the broker: topics, input, watermarks, and reading the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from agents.workload import Record
from engine.config import make
from engine.edges import Transaction
from engine.kafka.plain import PlainOutlet
from engine.partitioner import Partitioner
from engine.record import TP, Output
from engine.torture import observer

PARTITIONS = 4
_CHUNK = 20_000


class Cluster:
    """One broker, with the input topics of the main job."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    async def create(self, *topics: str) -> None:
        keep = {"retention.ms": "-1"}
        await observer.create(self.bootstrap, dict.fromkeys(topics, keep), PARTITIONS)
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            while not set(topics) <= await consumer.topics():
                await asyncio.sleep(0.05)

    async def delete_all_but(self, *kept: str) -> None:
        """Delete every topic but those, and wait until they are gone."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            gone = [
                t for t in await admin.list_topics() if t not in kept and not t.startswith("__")
            ]
            if gone:
                await admin.delete_topics(gone)
            while set(gone) & set(await admin.list_topics()):
                await asyncio.sleep(0.05)
        finally:
            await admin.close()

    async def load(self, topic: str, records: Iterable[Record]) -> int:
        """Write records as any keyed producer would place them; return how many."""

        async def no_offsets(_: Any) -> None:
            return

        outlet = PlainOutlet(make({"id": "loader", "broker": self.bootstrap}), no_offsets)
        await outlet.open()
        place = Partitioner(PARTITIONS)
        rows: dict[TP, list[Output]] = {}
        count = 0
        try:
            for key, value, time in records:
                partition = place(key) if key is not None else count % PARTITIONS
                rows.setdefault(TP(topic, partition), []).append((key, value, time, ()))
                count += 1
                if count % _CHUNK == 0:
                    await outlet.commit(Transaction(rows, {}, None))
                    rows = {}
            await outlet.commit(Transaction(rows, {}, None))
        finally:
            await outlet.close()
        return count

    async def exists(self, topic: str) -> bool:
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            return topic in await consumer.topics()

    async def committed(self, *topics: str) -> AsyncIterator[Any]:
        """Every record of these topics, as a reader of committed records gets them."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
        ) as consumer:
            tps = [TopicPartition(topic, n) for topic in topics for n in range(PARTITIONS)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        yield record

    async def size(self, topic: str) -> int:
        """How many committed records a topic holds."""
        return len([0 async for _ in self.committed(topic)])

    async def ids(self, topic: str) -> tuple[int, int]:
        """How many records a topic holds, and how many different event ids are in them."""
        decode = msgspec.json.Decoder(_Id).decode
        rows = [decode(record.value).id async for record in self.committed(topic)]
        return len(rows), len(set(rows))

    async def main_totals(self, app: str) -> tuple[int, int]:
        """How many events are in the main job's counts and in its sessions, open ones included."""
        seen = observer.Seen()
        for topic in ("user-sessions", "event-counts"):
            seen.topics[topic] = [record async for record in self.committed(topic)]
        for table in ("counts", "sessions"):
            topic = f"{app}-{table}-changelog"
            last = {(r.partition, r.key): r async for r in self.committed(topic)}
            seen.topics[topic] = list(last.values())
        counted = sum(observer.counts_in(seen, app).values())
        in_sessions = sum(row[3] * n for row, n in observer.sessions_in(seen, app).items())
        return counted, in_sessions


class _Id(msgspec.Struct):
    id: str


class Watermark:
    """How far a topic has been written, markers of transactions included."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    async def __aenter__(self) -> Watermark:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def now(self) -> int:
        return sum((await self._consumer.end_offsets(self._partitions)).values())
