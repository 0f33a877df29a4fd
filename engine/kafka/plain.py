"""The outlet for brokers without transactions: at least once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from engine.errors import CommitUnknown
from engine.kafka.produce import Connected, Producing, Refused
from engine.kafka.records import halves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Position, Transaction
    from engine.record import TP


class PlainOutlet(Connected):
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
        super().__init__(config, clock)
        self._commit_offsets = commit_offsets

    async def open(self) -> None:
        """Connect."""
        await self.close()
        await self._connect()

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """See :class:`engine.edges.Outlet`; what fails here is sent again."""
        assert self._client is not None, "the outlet is not open"
        rows = transaction.rows
        try:
            async with asyncio.timeout(self._config.transaction_timeout_ms / 1000):
                producing = Producing(
                    self._client, halve=lambda tp, batch: halves(batch, rows[tp], self._encode)
                )
                ends = await producing.send({tp: self._encode(rows[tp]) for tp in rows})
                await self._commit_offsets(dict(transaction.positions))
        except Refused as error:
            raise error.as_error() from error
        except (TimeoutError, KafkaError, OSError) as error:
            raise CommitUnknown(f"no answer from the broker: {error!r}") from error
        return ends
