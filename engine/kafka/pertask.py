"""A transactional producer a task: the shape of Kafka Streams' first exactly-once (KIP-129).

The transactional id is the task's, wherever it runs: to become its owner is to fence whoever had it
before. A worker with many tasks has as many transactions a commit and two connections for each, so
one producer a worker (:mod:`engine.kafka.producer`) is the usual shape; this one does not rest on
the group's generation alone, and a transaction that fails is one task's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.errors import CommitRefused
from engine.kafka.produce import Connected, together
from engine.kafka.producer import KafkaOutlet

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Transaction
    from engine.record import TP

OPENS_AT_ONCE = 8


class TaskOutlets(Connected):
    """See :class:`engine.edges.Outlet`; ``producers="task"`` selects it."""

    transactional = True
    per_task = True

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        super().__init__(config, clock)
        self._outlets: dict[str, KafkaOutlet] = {}

    async def open(self) -> None:
        """Connect; the producers are opened as their tasks come."""
        await self.close()
        await self._connect()

    async def own(self, tasks: Collection[str]) -> None:
        """Open these tasks' producers anew: earlier ones are fenced, their transactions decided.

        Raises:
            BrokerError: the broker gives none.
        """
        gate = asyncio.Semaphore(OPENS_AT_ONCE)

        async def open_one(task: str) -> None:
            async with gate:
                outlet = self._outlets.get(task)
                if outlet is None:
                    name = f"{self._config.id}-task-{task}"
                    outlet = self._outlets[task] = KafkaOutlet(self._config, name, self._clock)
                await outlet.open()

        await together(map(open_one, tasks))

    async def commit(self, transaction: Transaction) -> dict[TP, int]:
        """Commit one task's transaction on its own producer."""
        outlet = self._outlets.get(transaction.task)
        if outlet is None:
            raise CommitRefused(f"task {transaction.task} has no producer here any more")
        return await outlet.commit(transaction)

    async def close(self) -> None:
        """Drop all connections."""
        outlets = list(self._outlets.values())
        self._outlets.clear()
        for outlet in outlets:
            await outlet.close()
        await super().close()
