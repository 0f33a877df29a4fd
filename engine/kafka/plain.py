"""The outlet for brokers without transactions: at least once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from engine.clock import SystemClock
from engine.errors import BrokerError, CommitUnknown, RecordRefused
from engine.kafka.client import FUTURE_MS, connect
from engine.kafka.produce import Producing, Refused
from engine.kafka.records import CODECS, encode_batches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiokafka.client import AIOKafkaClient

    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Position, Transaction
    from engine.record import TP, Headers


class PlainOutlet:
    """For brokers without transactions: send, await every answer, then commit the offsets.

    At least once: a crash in between sends the outputs again.

    Args:
        commit_offsets: commits positions as a member of the group.
    """

    transactional = False

    def __init__(
        self,
        config: Config,
        commit_offsets: Callable[[dict[TP, Position]], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._codec = CODECS[config.compression]
        self._client: AIOKafkaClient | None = None
        self._commit_offsets = commit_offsets
        self._clock = clock or SystemClock()

    async def open(self) -> None:
        """Connect."""
        await self.close()
        self._client = await connect(self._config, "producer")

    async def close(self) -> None:
        """Drop the connections."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """See :class:`engine.edges.Outlet`; what fails here is sent again."""
        assert self._client is not None, "the outlet is not open"
        try:
            async with asyncio.timeout(self._config.transaction_timeout_ms / 1000):
                latest_ms = self._clock.now_ms() + FUTURE_MS
                batches = {
                    tp: encode_batches(rows, self._codec, latest_ms=latest_ms)
                    for tp, rows in transaction.rows.items()
                }
                ends = await Producing(self._client).send(batches)
                await self._commit_offsets(dict(transaction.positions))
        except Refused as error:
            raise RecordRefused(str(error)) from error
        except (TimeoutError, KafkaError, OSError) as error:
            raise CommitUnknown(f"no answer from the broker: {error!r}") from error
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
        """Send one record at once."""
        if self._client is None:
            raise BrokerError(f"could not send to {topic}: the connection is being renewed")
        one = Producing(self._client)
        await one.send_one(topic, key, value, timestamp or 0, headers, partition or 0)
