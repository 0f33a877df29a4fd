"""Which tasks a worker has, and how it comes to have them and gives them up.

A new task goes through four steps, in this order (reliability depends on it):

1. read the committed positions, waiting for transactions that are still open on them;
2. open the store and restore the tables to the end of their changelogs;
3. start the agents;
4. seek the inputs to the committed positions, and only then do records flow.

Steps 2 to 4 run beside the loop: tasks that were here before work on meanwhile. A task that was a
standby here has most of step 2 behind it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from engine import crashpoint, gaps, incarnation, recovery
from engine.errors import ConfigError, InputLost
from engine.life import State
from engine.parking import Parking, TaskKey
from engine.record import TP
from engine.standby import Standbys
from engine.task import Task
from engine.verdicts import Verdicts
from tables.errors import StoreCorrupted, StoreFailed, StoreForeign, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from engine.config import Config
    from engine.edges import Assigned, Edges, Position
    from engine.metrics import Metrics
    from engine.topology import Topology

log = logging.getLogger(__name__)

RESTORES_AT_ONCE = 4
LOCK_WAIT_S = 10.0

GROWN_REMEDY = (
    "Nothing of the new partitions was read. Give the app a new id, or delete its changelogs while "
    "no worker runs, so that the tables are built anew"
)


def _name(key: TaskKey) -> str:
    return f"{key[0]}_{key[1]}"


class Assignment:
    """The tasks of one worker.

    Attributes:
        verdicts: what is known about events that fail.
        parking: tasks that stand still.
        topic_ids: of the topics when their tasks were made, where the broker tells.
    """

    def __init__(
        self,
        topology: Topology,
        edges: Edges,
        metrics: Metrics,
        config: Config,
        partitions_of: Callable[[str], int],
        world: Mapping[str, Any] = {},
    ) -> None:
        self.tasks: dict[TaskKey, Task] = {}
        self.verdicts = Verdicts()
        self.parking = Parking(edges, metrics)
        self._edges = edges
        self._metrics = metrics
        self._config = config
        self._partitions_of = partitions_of
        self._world = world
        self._parts = {part.name: part for part in topology.parts}
        self._part_of = {topic.name: part for part in topology.parts for topic in part.inputs}
        self._standbys = Standbys(edges, metrics, self._open)
        self._names = list(topology.topics)
        self.topic_ids: dict[str, str] = {}
        self._wanted: set[TaskKey] = set()
        self._membership: Any = None
        self._begins: dict[TaskKey, dict[TP, Position | None]] = {}  # of those that are coming
        self._coming: dict[TaskKey, asyncio.Task[None]] = {}
        self._restores = asyncio.Semaphore(RESTORES_AT_ONCE)

    def task_of(self, tp: TP) -> Task | None:
        """Return the task that reads a partition, if it is here and works."""
        task = self.tasks.get((self._part_of[tp.topic].name, tp.partition))
        return task if task is not None and task.state is not State.CREATED else None

    def working(self) -> list[Task]:
        """Return the tasks that have started."""
        return [task for task in self.tasks.values() if task.state is not State.CREATED]

    @property
    def coming(self) -> bool:
        """Whether a task is still being restored."""
        return any(not task.done() for task in self._coming.values())

    def is_member(self) -> bool:
        """Say whether the group still has us as it had when we took these tasks."""
        return bool(self._edges.source.membership() == self._membership)

    async def take(self, assigned: Assigned) -> None:
        """Become the owner of exactly these partitions, as the member that they were given to.

        A task that was here before is kept only if its positions are still the ones it committed:
        a worker that was thrown out and came back may be given a task that another one had worked
        on meanwhile, and what it holds of it is then out of date.

        Raises:
            BrokerError: the committed positions cannot be read.
        """
        wanted = self.keys_of(assigned.active)
        self._wanted = wanted
        self.parking.keep(wanted)
        await self._standbys.rest()
        await self.drop([key for key in self.tasks if key not in wanted])
        self._metrics.tasks(len(wanted))
        if self.tasks:
            tps = [tp for task in self.tasks.values() for tp in task.inbox.inputs]
            committed = await self._edges.source.positions(tps)
            stale = [key for key in self.tasks if not self._is_current(key, committed)]
            if stale:
                log.warning("out of date, restored anew: %s", ", ".join(map(_name, stale)))
                await self.drop(stale)
        self._membership = assigned.membership
        for key, task in self.tasks.items():
            task.membership = assigned.membership
            if key not in self._coming:
                self._flow_on(task)
        new = self._lacking()
        if new:
            log.info("new tasks: %s", ", ".join(map(_name, new)))
            await self.create(new)
        await self._standbys.keep(self.keys_of(assigned.standby) - wanted)

    def keys_of(self, tps: Iterable[TP]) -> set[TaskKey]:
        """Return the tasks that read these partitions."""
        return {(self._part_of[tp.topic].name, tp.partition) for tp in tps}

    def _is_current(self, key: TaskKey, committed: dict[TP, Position | None]) -> bool:
        """Say whether a task, at work or still being restored, has all that was committed."""
        if key in self._coming:
            return all(committed.get(tp) == at for tp, at in self._begins[key].items())
        return self.tasks[key].is_at(committed)

    def _flow_on(self, task: Task) -> None:
        """Let a task that stayed here through a rebalance go on where it was."""
        for tp, each in task.inbox.inputs.items():
            self._edges.source.seek(tp, each.received)
        task.release()

    async def create(self, keys: Iterable[TaskKey]) -> None:
        """Make tasks and let them come up, beside the loop.

        Raises:
            BrokerError: the committed positions cannot be read.
        """
        inputs = {
            (name, number): [TP(topic.name, number) for topic in self._parts[name].inputs]
            for name, number in keys
        }
        every = [tp for tps in inputs.values() for tp in tps]
        await self._edges.outlet.own([_name(key) for key in inputs])
        committed = await self._edges.source.positions(every)
        bounds = await self._edges.log.bounds(every)
        self.topic_ids = await self._edges.admin.topic_ids(self._names)
        for key, tps in inputs.items():
            at = {tp: committed.get(tp) for tp in tps}
            task = None if self._stops(key, at, bounds) else await self._obtain(key)
            if task is None:
                continue
            for tp in tps:
                if at[tp] is None:
                    task.inbox.inputs[tp].begin(*bounds[tp])
            task.membership = self._membership
            task.topic_ids = self.topic_ids
            self.tasks[key] = task
            self._begins[key] = {tp: committed.get(tp) for tp in tps}
            self._coming[key] = asyncio.get_running_loop().create_task(
                self._bring_up(key, task, at), name=f"restore-{task.id}"
            )

    def _stops(
        self, key: TaskKey, at: dict[TP, Position | None], bounds: dict[TP, tuple[int, int]]
    ) -> bool:
        """Say whether a task cannot begin where it was; correct positions if it may go on."""
        grown = self._parts[key[0]].grown(key[1])
        if grown:
            self.parking.stop(key, ConfigError(grown), GROWN_REMEDY)
            return True
        for tp, position in at.items():
            topic_id = self.topic_ids.get(tp.topic, "")
            error = gaps.lost(tp, position, bounds[tp], topic_id)
            if error is not None and self._config.on_lost_input == "stop":
                self.parking.stop(key, error, gaps.REMEDY)
                return True
            if error is not None:
                assert position is not None
                log.error("%s", error)
                at[tp] = gaps.passed(tp, position, bounds[tp], topic_id)
        return False

    async def _obtain(self, key: TaskKey) -> Task | None:
        """Take a standby, or open a store; None if its disk or directory does not allow it."""
        task = self._standbys.give(key)
        if task is not None:
            crashpoint.reach("promote")
            return task
        try:
            return await self._open(key)
        except StoreForeign as error:
            self.parking.stop(key, error, "Then restart the worker")
        except StoreFailed as error:
            self.parking.wait(key, error)
        return None

    async def _open(self, key: TaskKey) -> Task:
        """Make the task on its store; an earlier owner in this process may still be closing it."""
        part, number = self._parts[key[0]], key[1]
        deadline = self._edges.clock.elapsed_ms() + 1000 * LOCK_WAIT_S
        while True:
            try:
                task = Task(
                    part,
                    number,
                    edges=self._edges,
                    metrics=self._metrics,
                    partitions_of=self._partitions_of,
                    verdicts=self.verdicts,
                    end_marks=self._config.end_marks,
                    window_headers=self._config.window_headers,
                    world=self._world,
                    future_limit_ms=self._config.future_limit_ms,
                )
                break
            except StoreLocked:
                if self._edges.clock.elapsed_ms() > deadline:
                    raise
                await asyncio.sleep(0.05)
        try:
            self._check_store(task)
        except StoreFailed:
            await task.close()
            raise
        return task

    def _check_store(self, task: Task) -> None:
        now_ms = self._edges.clock.now_ms()
        try:
            incarnation.check(task, self.topic_ids, now_ms)
        except StoreCorrupted as error:
            log.warning("task %s: %s", task.id, error)
            task.store.clear()
            incarnation.check(task, self.topic_ids, now_ms)

    async def _bring_up(self, key: TaskKey, task: Task, at: dict[TP, Position | None]) -> None:
        """Steps 2 to 4."""
        try:
            async with self._restores:
                await self._restore(task, at)
        except (StoreFailed, InputLost) as error:
            if isinstance(error, InputLost):
                self.parking.stop(key, error, gaps.CHANGELOG_REMEDY)
            else:
                self.parking.wait(key, error)
            del self._coming[key], self.tasks[key]
            await task.close()
            return
        task.start(at)
        task.was_at(self._begins[key])
        del self._coming[key]
        for tp, each in task.inbox.inputs.items():
            self._edges.source.seek(tp, each.received)
        self._edges.source.wake()

    async def _restore(self, task: Task, at: dict[TP, Position | None]) -> None:
        incomplete = self._config.on_lost_input == "continue"
        restoring = partial(
            recovery.restore, [task], at, self._edges, self._metrics, incomplete=incomplete
        )
        try:
            await restoring()
        except StoreCorrupted as error:
            log.warning("task %s: %s", task.id, error)
            task.store.clear()
            await restoring()

    def raise_failed(self) -> None:
        """Raise what a task raised while it was coming up, or a standby while it followed."""
        for key, coming in list(self._coming.items()):
            if coming.done():
                del self._coming[key]
                coming.result()
        self._standbys.raise_failed()

    async def hold(self) -> None:
        """Let every task finish its event in hand and take no more."""
        working = self.working()
        if working:
            async with asyncio.TaskGroup() as group:
                for task in working:
                    group.create_task(task.hold())

    async def drop(self, keys: Iterable[TaskKey]) -> None:
        """Close tasks. What they have not committed is gone."""
        for key in list(keys):
            coming = self._coming.pop(key, None)
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])
            task = self.tasks.pop(key)
            await task.close()
        self._metrics.tasks(len(self.tasks))

    async def renew(self, keys: Iterable[TaskKey] | None = None) -> None:
        """Make tasks anew from the committed state: what they hold in memory is in doubt.

        Args:
            keys: which; None: all that this worker should have, also those that are gone.

        Raises:
            BrokerError: the committed positions cannot be read; call it again.
        """
        await self.drop(
            [key for key in (self.tasks if keys is None else keys) if key in self.tasks]
        )
        await self.create(self._lacking())

    def _lacking(self) -> list[TaskKey]:
        """Return the tasks that should be here and are not, but for those that stand still."""
        return sorted(self._wanted - self.tasks.keys() - self.parking.parked.keys())

    def parked_inputs(self) -> list[TP]:
        """Return the inputs of the tasks that stand still."""
        parked = self.parking.parked
        return [TP(t, number) for name, number in parked for t in self._inputs_of(name)]

    def _inputs_of(self, part: str) -> list[str]:
        return [topic for topic, owner in self._part_of.items() if owner.name == part]

    def readers_of(self, topics: Collection[str]) -> list[Task]:
        """Return the tasks that read one of these topics."""
        parts = {self._part_of[topic].name for topic in topics if topic in self._part_of}
        return [task for task in self.tasks.values() if task.part.name in parts]

    def touching(self, topics: Collection[str]) -> list[TaskKey]:
        """Return the tasks here that read one of these topics, or log their tables to it."""
        return [key for key, task in self.tasks.items() if task.part.touches(topics)]

    def key_of(self, task: Task) -> TaskKey:
        """Return the key of a task."""
        return task.part.name, task.partition

    async def close(self) -> None:
        """Close all tasks and standbys."""
        await self.drop(list(self.tasks))
        await self._standbys.close()

    def forget_store(self, path: object) -> None:
        """Empty the store in a directory that cannot be read; its task restores it."""
        for task in self.tasks.values():
            if getattr(task.store, "path", None) == path:
                task.store.clear()
