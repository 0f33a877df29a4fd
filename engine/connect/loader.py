"""Put records into a topic, in batches, as fast as one connection takes them.

No transaction: a batch is acknowledged by all in-sync replicas or it is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.edges import Transaction
from engine.errors import BrokerError, CommitUnknown
from engine.kafka.plain import PlainOutlet
from engine.partitioner import partitioner_for
from engine.record import TP
from engine.task import END_MARK

if TYPE_CHECKING:
    from typing import Self

    from engine.config import Config
    from engine.edges import Position
    from engine.record import Output

BATCH_RECORDS = 5_000
BATCH_BYTES = 4 << 20

Keyed = tuple[bytes | None, bytes | None, int]
"""A record before it has a partition: key, value, timestamp (ms)."""


class Loader:
    """A connection that loads topics. Use it in an ``async with`` statement.

    Attributes:
        sent: how many records have been acknowledged.
    """

    def __init__(self, config: Config) -> None:
        self._outlet = PlainOutlet(config, _no_offsets)
        self.sent = 0

    async def __aenter__(self) -> Self:
        await self._outlet.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._outlet.close()

    async def load(self, topic: str, partitions: int, records: Iterable[Keyed]) -> None:
        """Send records: one with a key to its key's partition, the others to each in turn.

        Raises:
            BrokerError: the broker does not answer, or RecordRefused: it does not take a record.
        """
        partition_of = partitioner_for(partitions)
        rows: dict[TP, list[Output]] = {TP(topic, number): [] for number in range(partitions)}
        lanes = list(rows.values())
        count = size = turn = 0
        for key, value, timestamp in records:
            if key is None:
                turn = (turn + 1) % partitions
                lanes[turn].append((None, value, timestamp, ()))
            else:
                lanes[partition_of[key]].append((key, value, timestamp, ()))
            count += 1
            if value is not None:
                size += len(value)
            if count >= BATCH_RECORDS or size >= BATCH_BYTES:
                await self._send(rows)
                count = size = 0
        await self._send(rows)

    async def end(self, topic: str, partitions: int) -> None:
        """Mark the end of every partition: workers with ``end_marks`` close their windows there."""
        mark: Output = (None, None, 0, ((END_MARK, b""),))
        rows = {TP(topic, number): [mark] for number in range(partitions)}
        await self._outlet.commit(Transaction(rows, {}, None))

    async def _send(self, rows: dict[TP, list[Output]]) -> None:
        """Send what has been gathered, and empty the lists."""
        filled = {tp: lane for tp, lane in rows.items() if lane}
        if not filled:
            return
        try:
            await self._outlet.commit(Transaction(filled, {}, None))
        except CommitUnknown as error:
            raise BrokerError(
                f"the broker does not answer while records are sent: {error}"
            ) from error
        self.sent += sum(map(len, filled.values()))
        for lane in filled.values():
            lane.clear()


async def _no_offsets(_: dict[TP, Position]) -> None:
    """There are no positions to commit: nothing was consumed."""
