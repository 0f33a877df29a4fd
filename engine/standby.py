"""Standbys: warm copies of tasks that other workers run.

A standby is a task that has not started: its store follows the committed changelogs, some tenths of
a second behind, and it is all there is of it. When its worker fails and the group gives the task to
us, only what came since the last look is left to restore. A table that is a topic is followed up to
the position that the task has committed, and no further: what comes after is input.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from engine import recovery
from engine.errors import BrokerError
from engine.record import TP
from tables.errors import StoreCorrupted, StoreFailed, StoreForeign

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from engine.edges import Edges
    from engine.metrics import Metrics
    from engine.parking import TaskKey
    from engine.task import Task

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""Between two looks at the changelogs: so far behind is a standby, and so much is left to do."""
TROUBLE_S = 2.0


class Standbys:
    """The standbys of one worker.

    Args:
        make: opens a task on its store, without starting it.
    """

    def __init__(
        self, edges: Edges, metrics: Metrics, make: Callable[[TaskKey], Awaitable[Task]]
    ) -> None:
        self._edges = edges
        self._metrics = metrics
        self._make = make
        self._tasks: dict[TaskKey, Task] = {}
        self._following: asyncio.Task[None] | None = None

    async def keep(self, keys: Collection[TaskKey]) -> None:
        """Follow exactly these tasks from now on."""
        await self.rest()
        for key in self._tasks.keys() - set(keys):
            await self._tasks.pop(key).close()
        self._metrics.standbys(len(keys))
        if keys:
            self._following = asyncio.get_running_loop().create_task(
                self._follow(sorted(keys)), name="standby"
            )

    async def rest(self) -> None:
        """Follow nothing, until :meth:`keep` is called again."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])

    def give(self, key: TaskKey) -> Task | None:
        """Give a standby away, to be started; None if there is none. Not while they follow."""
        return self._tasks.pop(key, None)

    def raise_failed(self) -> None:
        """Raise what ended the following, if anything has."""
        if self._following is not None and self._following.done():
            self._following.result()

    async def close(self) -> None:
        """Stop following, and release the stores."""
        await self.keep(())

    async def _follow(self, keys: list[TaskKey]) -> None:
        """Open what is new, then look at the changelogs for ever."""
        new = [key for key in keys if key not in self._tasks]
        for key in new:
            await asyncio.sleep(0)  # opening takes tens of ms: the tasks that work come first
            try:
                self._tasks[key] = await self._make(key)
            except (StoreFailed, StoreForeign) as error:
                log.warning("no standby of task %s_%d: %s", *key, error)
        if new:
            log.info("new standbys: %s", ", ".join(f"{part}_{number}" for part, number in new))
        while True:
            pause_s = LOOK_S
            try:
                await self._look()
            except (BrokerError, StoreFailed) as error:
                log.warning("the standbys do not follow for now: %s", error)
                pause_s = TROUBLE_S
            except StoreCorrupted as error:
                log.warning("%s", error)
                for task in self._tasks.values():
                    if getattr(task.store, "path", None) == error.path:
                        task.store.clear()
            await asyncio.sleep(pause_s)

    async def _look(self) -> None:
        """Bring every standby to where its changelogs are now."""
        tasks = list(self._tasks.values())
        sources = [
            TP(table.source.name, task.partition)
            for task in tasks
            for table in task.part.tables
            if table.source is not None
        ]
        committed = await self._edges.source.positions(sources) if sources else {}
        await recovery.restore(tasks, committed, self._edges, self._metrics, follow=True)
