"""Reading partitions by hand: how changelogs are restored, and how results are counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import KafkaError

from engine.errors import BrokerError
from engine.kafka.client import make_consumer, release, unreachable
from engine.kafka.records import read_columns
from engine.record import TP, Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from engine.config import Config

STALLED_S = 60.0
"""No progress for so long is an error: the longest transaction timeout plus time to elect."""
FETCH_BYTES = 4 << 20
READS = 32
"""So many partitions are read at a time, about."""
LOOK_S = 0.005


class KafkaLog:
    """See :class:`engine.edges.Log`. A connection a read at a time, kept for the next one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._askers: dict[str, Any] = {}  # for bounds, by isolation level
        self._spare: list[Any] = []
        self._connecting = asyncio.Lock()
        self._fetch_bytes = min(FETCH_BYTES, config.fetch_memory // READS)

    async def _consumer(self, isolation: str, fetch_bytes: int = 0) -> Any:
        consumer = make_consumer(
            self._config,
            "log",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            max_partition_fetch_bytes=fetch_bytes or self._fetch_bytes,
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await release(consumer)
            raise unreachable(self._config, error) from error
        return consumer

    async def bounds(
        self, tps: Collection[TP], *, stable: bool = False
    ) -> dict[TP, tuple[int, int]]:
        """Return the first offset of each partition, and the high watermark.

        Args:
            stable: return the last stable offset in the place of the high watermark.
        """
        if not tps:
            return {}
        isolation = "read_committed" if stable else "read_uncommitted"
        async with self._connecting:
            if isolation not in self._askers:
                self._askers[isolation] = await self._consumer(isolation)
        asker = self._askers[isolation]
        keys = [TopicPartition(*tp) for tp in tps]
        for topic in {tp.topic for tp in tps}:  # else aiokafka looks, sleeps 100 ms and looks again
            asker._client.add_topic(topic)
        try:
            first = await asker.beginning_offsets(keys)
            last = await asker.end_offsets(keys)
        except (KafkaError, OSError) as error:
            raise BrokerError(f"could not read the bounds of the topics: {error!r}") from error
        if self._config.guarantee == "at_least_once":
            last |= await self._ends_fetched(
                {key: last[key] for key in keys if last[key] > first[key]}
            )
        return {TP(*key): (first[key], last[key]) for key in keys}

    async def _ends_fetched(self, ends: dict[Any, int]) -> dict[Any, int]:
        """Return the high watermarks that come with fetches.

        Asked for a partition's end, Tansu tells where its last batch begins, and one more.
        """
        if not ends:
            return ends
        consumer = await self._consumer("read_uncommitted", fetch_bytes=1)
        try:
            consumer.assign(list(ends))
            for key, end in ends.items():
                consumer.seek(key, end - 1)
            async with asyncio.timeout(STALLED_S):
                while any(consumer.highwater(key) is None for key in ends):
                    await asyncio.sleep(LOOK_S)
            return {key: consumer.highwater(key) for key in ends}
        except TimeoutError as error:
            raise BrokerError("the broker does not say how far its topics reach") from error
        finally:
            await release(consumer)

    async def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[Batch]:
        """Yield the committed records in [start, end) of each partition, as they come."""
        ends = {TopicPartition(*tp): end for tp, (start, end) in spans.items() if start < end}
        if not ends:
            return
        consumer = self._spare.pop() if self._spare else await self._consumer("read_committed")
        try:
            consumer.assign(list(ends))
            for key in ends:
                consumer.seek(key, spans[TP(*key)][0])
            while ends:
                batch = await self._next(consumer, ends)
                key = TopicPartition(*batch.tp)
                part = batch.before(ends[key])
                if part.next_offset >= ends[key]:
                    del ends[key]
                    consumer.pause(key)
                yield part
        finally:
            if ends:  # it was broken off, maybe by an error
                await release(consumer)
            else:
                self._spare.append(consumer)

    async def _next(self, consumer: Any, wanted: Collection[Any]) -> Batch:
        """Return the next batch; an open transaction at the position is waited for."""
        fetcher = consumer._fetcher
        try:
            async with asyncio.timeout(STALLED_S):
                while True:
                    for key in list(fetcher._records):
                        fetched = fetcher._records.pop(key)
                        fetcher._notify(fetcher._wait_consume_future)
                        if key in wanted and (batch := self._read(key, fetched)) is not None:
                            return batch
                    await fetcher._create_fetch_waiter()
        except TimeoutError as error:
            names = ", ".join(str(TP(*key)) for key in sorted(wanted))
            raise BrokerError(
                f"{names}: no committed records for {STALLED_S:.0f} s although there are more: a "
                "transaction was left open. See `kafka-transactions find-hanging`, and end it with "
                "`kafka-transactions abort`"
            ) from error

    def _read(self, key: Any, fetched: Any) -> Batch | None:
        """Return what a fetch brought; None if it belongs to an earlier read."""
        tp = TP(*key)
        if type(fetched) is not FetchResult:
            try:
                fetched.check_raise()
            except KafkaError as error:
                raise BrokerError(f"{tp}: {error!r}") from error
        if not fetched.check_assignment(key):
            return None
        batch = read_columns(tp, fetched._partition_records)
        fetched._assignment.state_value(key).consumed_to(batch.next_offset)
        return batch

    async def close(self) -> None:
        """Release the connections."""
        consumers = [*self._askers.values(), *self._spare]
        self._askers.clear()
        self._spare.clear()
        for consumer in consumers:
            await release(consumer)
