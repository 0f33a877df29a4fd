"""Reading a partition by hand: how changelogs are restored, and how results are counted."""

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
    from collections.abc import AsyncIterator, Collection

    from engine.config import Config

STALLED_S = 60.0
"""No progress for so long is an error: the longest transaction timeout plus time to elect."""
FETCH_BYTES = 4 << 20
LOOK_S = 0.005


class KafkaLog:
    """See :class:`engine.edges.Log`. One connection a read; bounds share one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._bounds: Any = None
        self._connecting = asyncio.Lock()

    async def _consumer(self, isolation: str, fetch_bytes: int = FETCH_BYTES) -> Any:
        consumer = make_consumer(
            self._config,
            "log",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await release(consumer)
            raise unreachable(self._config, error) from error
        return consumer

    async def bounds(self, tps: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Return the first offset and the high watermark of each partition."""
        if not tps:
            return {}
        async with self._connecting:
            if self._bounds is None:  # read_uncommitted: else it ends at the last stable offset
                self._bounds = await self._consumer("read_uncommitted")
        keys = [TopicPartition(*tp) for tp in tps]
        try:
            first = await self._bounds.beginning_offsets(keys)
            last = await self._bounds.end_offsets(keys)
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

    async def read(self, tp: TP, start: int, end: int) -> AsyncIterator[Batch]:
        """Yield the committed records in [start, end)."""
        if start >= end:
            return
        consumer = await self._consumer("read_committed")
        try:
            key = TopicPartition(*tp)
            consumer.assign([key])
            consumer.seek(key, start)
            position = start
            while position < end:
                batch = (await self._next(consumer, tp, key)).before(end)
                position = batch.next_offset
                yield batch
        finally:
            await release(consumer)

    async def _next(self, consumer: Any, tp: TP, key: Any) -> Batch:
        """Return the next batch; an open transaction at the position is waited for."""
        fetcher = consumer._fetcher
        try:
            async with asyncio.timeout(STALLED_S):
                while key not in fetcher._records:
                    await fetcher._create_fetch_waiter()
        except TimeoutError as error:
            raise BrokerError(
                f"{tp}: no committed records for {STALLED_S:.0f} s although there are more: a "
                "transaction was left open. See `kafka-transactions find-hanging`, and end it with "
                "`kafka-transactions abort`"
            ) from error
        fetched = fetcher._records.pop(key)
        fetcher._notify(fetcher._wait_consume_future)
        if type(fetched) is not FetchResult:
            try:
                fetched.check_raise()
            except KafkaError as error:
                raise BrokerError(f"{tp}: {error!r}") from error
        batch = read_columns(tp, fetched._partition_records)
        fetched._assignment.state_value(key).consumed_to(batch.next_offset)
        return batch

    async def close(self) -> None:
        """Release the connection."""
        bounds, self._bounds = self._bounds, None
        if bounds is not None:
            await release(bounds)
