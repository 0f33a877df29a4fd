"""What the benchmarks do with the broker: topics, input, watermarks, and reading the results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient

from agents.workload import Record
from engine.config import make
from engine.edges import Transaction
from engine.kafka.plain import PlainOutlet
from engine.partitioner import partitioner_for
from engine.record import TP, Output
from engine.torture import observer

PARTITIONS = 4
_CHUNK = 20_000
_LOOKS_A_CENSUS = 10


class Cluster:
    """One broker, with the input topics of the main job."""

    def __init__(self, bootstrap: str, partitions: int = PARTITIONS) -> None:
        self.bootstrap = bootstrap
        self.partitions = partitions

    async def create(self, *topics: str) -> None:
        keep = {"retention.ms": "-1"}
        await observer.create(self.bootstrap, dict.fromkeys(topics, keep), self.partitions)
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            while not set(topics) <= await consumer.topics():
                await asyncio.sleep(0.05)

    async def warm(self, topic: str) -> None:
        """Have the broker make what its first group and its first transaction make it wait for.

        Those are 50 partitions each of ``__consumer_offsets`` and ``__transaction_state``, which
        the engine that comes first would pay for (1 s, seen with 150,000 events in 2.5 s).
        """
        first = TopicPartition(topic, 0)
        async with (
            AIOKafkaProducer(bootstrap_servers=self.bootstrap, transactional_id="warm") as producer,
            producer.transaction(),
        ):
            await producer.send_offsets_to_transaction({first: 0}, "warm")

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
        place = partitioner_for(self.partitions)
        rows: dict[TP, list[Output]] = {}
        count = 0
        try:
            for key, value, time in records:
                partition = place[key] if key is not None else count % self.partitions
                rows.setdefault(TP(topic, partition), []).append((key, value, time, ()))
                count += 1
                if count % _CHUNK == 0:
                    await outlet.commit(Transaction(rows, {}, None))
                    rows = {}
            await outlet.commit(Transaction(rows, {}, None))
        finally:
            await outlet.close()
        return count

    async def topics(self) -> set[str]:
        """The names of all topics."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            return set(await consumer.topics())

    async def committed(self, *topics: str) -> AsyncIterator[Any]:
        """Every record of these topics, as a reader of committed records gets them."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
        ) as consumer:
            widths = await observer.widths(self.bootstrap, topics)
            tps = [TopicPartition(topic, n) for topic in topics for n in range(widths[topic])]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        yield record

    async def lag(self, group: str, topic: str) -> int:
        """How many records of a topic a consumer group has yet to commit; 0 if it commits none."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            known = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        at = {tp: place.offset for tp, place in known.items() if tp.topic == topic}
        if not at:
            return 0
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            ends = await consumer.end_offsets(
                [TopicPartition(topic, number) for number in range(self.partitions)]
            )
        return sum(end - max(0, at.get(tp, 0)) for tp, end in ends.items())

    async def size(self, topic: str) -> int:
        """How many committed records a topic holds."""
        return len([0 async for _ in self.committed(topic)])

    async def values(self, topic: str) -> list[bytes]:
        """The values of a topic's committed records."""
        return [record.value async for record in self.committed(topic)]

    async def latest(self, topic: str) -> dict[bytes, bytes]:
        """What compaction would leave of a topic."""
        last = {record.key: record.value async for record in self.committed(topic)}
        return {key: value for key, value in last.items() if value is not None}


class Watermark:
    """How far a topic has been written, markers of transactions included."""

    def __init__(self, bootstrap: str, topic: str, partitions: int = PARTITIONS) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def now(self) -> int:
        """The sum of its partitions' ends."""
        return sum((await self._consumer.end_offsets(self._partitions)).values())


class Growth(Watermark):
    """How far the topics of a round have been written.

    All topics that are not input count: results, dead letters, changelogs, also those that the
    engine makes as it goes.
    """

    def __init__(self, bootstrap: str, inputs: Collection[str]) -> None:
        super().__init__(bootstrap, "", 0)
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)
        self._inputs = inputs
        self._looks = 0

    async def __aenter__(self) -> Self:
        await self._client.bootstrap()
        return await super().__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._client.close()

    async def now(self) -> int:
        """The sum of their ends."""
        if self._looks % _LOOKS_A_CENSUS == 0:
            cluster = await self._client.fetch_all_metadata()
            self._partitions = [
                TopicPartition(topic, number)
                for topic in cluster.topics()
                if topic not in self._inputs and not topic.startswith("__")
                for number in cluster.partitions_for_topic(topic) or ()
            ]
        self._looks += 1
        return await super().now()
