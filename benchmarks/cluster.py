"""What the benchmarks do with the broker: topics, input, watermarks, and reading the results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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
from tests.broker import observer

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

    async def sizes(self, *topics: str) -> dict[str, int]:
        """How many records each topic holds, as a reader of committed records counts them."""
        seen = await observer.observe(self.bootstrap, list(topics))
        return {topic: len(seen.topics[topic]) for topic in topics}

    async def ids(self, topic: str) -> tuple[int, int]:
        """How many records a topic holds, and how many different event ids are in them."""
        decode = msgspec.json.Decoder(_Id).decode
        seen = await observer.observe(self.bootstrap, [topic])
        rows = [decode(record.value).id for record in seen.topics[topic] if record.value]
        return len(rows), len(set(rows))

    async def main_totals(self, app: str) -> tuple[int, int]:
        """How many events are in the main job's counts and in its sessions, open ones included."""
        tables = [f"{app}-counts-changelog", f"{app}-sessions-changelog"]
        seen = await observer.observe(self.bootstrap, ["user-sessions", "event-counts", *tables])
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
