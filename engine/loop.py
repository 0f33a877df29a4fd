"""READ FIRST: one worker's loop. Poll, decode, process, emit, commit.

The loop moves batches: it polls all inputs, hands each batch to its task (which decodes and checks
it whole), lets the tasks run, and commits when it is due. Tasks work beside it, so an agent that
awaits something slow holds up its own task only. Everything that goes wrong comes back here and is
answered in :meth:`Engine._answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import TYPE_CHECKING

from engine import cpu, crashpoint
from engine.assignment import Assignment
from engine.census import Census
from engine.checkpoint import Checkpoint
from engine.cut import TaskCut
from engine.errors import (
    AccessDenied,
    AgentFailed,
    BrokerError,
    CommitRefused,
    CommitUnknown,
    HeadraceError,
    InputLost,
    RecordRefused,
)
from engine.globaltable import World
from engine.health import Health
from engine.life import State
from engine.metrics import Metrics
from engine.pace import Pace
from engine.provision import provide
from engine.stages import stages
from engine.watch import Watch
from tables.errors import StoreCorrupted, StoreFailed

if TYPE_CHECKING:
    from engine.config import Config
    from engine.edges import Assigned, Edges
    from engine.record import TP
    from engine.task import Task
    from engine.topology import Topology
    from engine.verdicts import Ruling

log = logging.getLogger(__name__)

REVOKE_BUDGET_S = 20.0
HOLD_BUDGET_S = 10.0
RETRY_S = 0.2
RETRY_MOST_S = 5.0
DENIED_S = 2.0


class Engine:
    """One worker: its part of the topology, its tasks, its commits.

    Args:
        topology: what runs, not yet measured against the cluster.
        edges: the world outside.
    """

    def __init__(
        self, config: Config, topology: Topology, edges: Edges, metrics: Metrics | None = None
    ) -> None:
        self.config = config
        self.topology = topology
        self.edges = edges
        self.metrics = metrics or Metrics()
        self.checkpoint = Checkpoint(edges, self.metrics)
        self.assignment: Assignment
        self.world: World
        self.ready = asyncio.Event()
        self._census = Census(edges)
        self._health = Health(config, edges.clock, self.metrics, self.ready)
        self._partitions: dict[str, int] = {}
        self._assigned: Assigned | None = None
        self._moving = False  # between a rebalance's begin and its end nothing can be committed
        self.pace = Pace(config, edges.clock, self.metrics)
        self._stopping = False
        self._doubt: Exception | None = None
        self._turn = asyncio.Lock()  # commits, rebalances and recoveries, one at a time

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until :meth:`stop`; then commit what is done and leave."""
        if self.config.collect_after:
            gc.set_threshold(self.config.collect_after, 20, 50)
        stages.begin()
        try:
            with Watch(self.config.stall_ms, self.edges.clock, self.metrics):
                await self.open()
                while not self._stopping:
                    await self.step()
                await self._last_commit()
                crashpoint.reach("shutdown")
            for stopped in self.assignment.parking.stopped():
                raise stopped  # again: whoever started the worker sees it in how it ends
        finally:
            await self.close()

    async def step(self) -> None:
        """Go around once."""
        try:
            if self._assigned is not None:
                await self._rebalance()
            if self.assignment.parking.parked:
                await self._try_parked()
            anew = self._census.anew(self.assignment.topic_ids)
            if anew:
                await self._begin_anew(anew)
            tasks = self.assignment.working()
            patience_ms = self.pace.patience_ms(self.checkpoint, tasks, waiting=self._waiting())
            for fetched in await self.edges.source.poll(patience_ms, full=self._full()):
                task = self.assignment.task_of(fetched.tp)
                if task is not None:
                    task.receive(fetched)
            self.pace.share_out(self.assignment.working(), waiting=self._waiting())
            await asyncio.sleep(0)  # once a round: the agents' turn
            self.pace.round_ended()
            self.assignment.raise_failed()
            self.world.raise_failed()
            self._raise_doubt()
            if self._commit_is_due():
                await self._commit()
            self._health.look(self.checkpoint, self.assignment)
        except (HeadraceError, StoreCorrupted, StoreFailed) as error:
            await self._answer(error)

    def unready(self) -> str:
        """Say why this worker does not do its work; "": it does."""
        if not hasattr(self, "assignment"):
            return "it has not started yet"
        return self._health.unready(self.checkpoint, self.assignment)

    def stop(self) -> None:
        """Ask the loop to end."""
        self._stopping = True
        self.edges.source.wake()

    # -- the beginning and the end -----------------------------------------------------------

    async def open(self) -> None:
        """Check the topics, become the producer, join the group.

        Raises:
            ConfigError: topics are missing or not co-partitioned; the message names the fix.
            BrokerError: no broker answers.
        """
        self.topology, self._partitions = await provide(self.topology, self.edges.admin)
        self.world = World(self.topology.globals, self.edges, self.metrics)
        await self.world.begin()
        self.assignment = Assignment(
            self.topology,
            self.edges,
            self.metrics,
            self.config,
            self._partitions.__getitem__,
            self.world.tables,
        )
        await self.edges.outlet.open()
        await self.edges.source.start(
            self.topology.inputs, revoked=self._on_revoked, assigned=self._on_assigned
        )

    async def _last_commit(self) -> None:
        """Finish what is in hand and commit it; a failure here loses no more than time."""
        try:
            await self._commit_all()
        except (TimeoutError, BrokerError, CommitRefused, CommitUnknown, RecordRefused) as error:
            log.warning(
                "the last commit failed (%s); its work is done again by the next owner", error
            )

    async def close(self) -> None:
        """Leave: tasks first, then the group, then the connections."""
        if hasattr(self, "assignment"):  # else it never came so far
            await self.assignment.close()
        await cpu.close()
        await self._census.close()
        if hasattr(self, "world"):
            await self.world.close()
        await self.edges.source.close()
        await self.edges.outlet.close()
        await self.edges.log.close()
        await self.edges.admin.close()

    # -- pace --------------------------------------------------------------------------------

    def _waiting(self) -> bool:
        """Say whether nothing can be committed at the moment."""
        return self.checkpoint.in_flight or self._moving

    def _full(self) -> list[TP]:
        """Return the inputs that must not be polled now."""
        return self.pace.full(self.assignment.working()) + self.assignment.parked_inputs()

    def _commit_is_due(self) -> bool:
        if self._waiting() or self._assigned is not None:
            return False
        return self.pace.is_due(self.checkpoint, self.assignment.working())

    async def _commit(self) -> None:
        async with self._turn:
            tasks = self.assignment.working()
            self.pace.cut(self.checkpoint, tasks, self.edges.source)
            await self.checkpoint.begin(tasks)

    async def commit_now(self, wait_s: float) -> bool:
        """Commit what is done, beside :meth:`step`, and say whether that went well."""
        try:
            async with self._turn:
                await self.checkpoint.begin(self.assignment.working(), wait_s=wait_s)
                await self.checkpoint.landed()
        except (HeadraceError, StoreCorrupted, StoreFailed) as error:
            await self._answer(error)
            return False
        return True

    # -- rebalances --------------------------------------------------------------------------

    async def _on_revoked(self) -> None:
        """Before a rebalance: commit what is done, while it is still ours. Must not raise.

        While the group makes up its mind, the tasks go on with what they have: most stay here. What
        they do is committed under the new generation, or dropped with those that have gone.
        """
        crashpoint.reach("revoke")
        self._moving = True
        try:
            await self._commit_all()
            for task in self.assignment.working():
                task.release()
        except TimeoutError:
            self._doubt = CommitUnknown("the commit before a rebalance did not end in time")
        except Exception as error:  # noqa: BLE001  kept for the loop: aiokafka would only log it
            self._doubt = error

    async def _commit_all(self) -> None:
        """Hold all tasks and commit what is done; an event that takes too long is left out."""
        async with asyncio.timeout(REVOKE_BUDGET_S), self._turn:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_BUDGET_S):
                    await self.assignment.hold()
            if not self.checkpoint.failed:  # else the loop is about to start over
                await self.checkpoint.begin(self.assignment.working())
                await self.checkpoint.landed()

    def _on_assigned(self, assigned: Assigned) -> None:
        """After a rebalance: the loop takes it from here."""
        self._assigned = assigned
        self._moving = False

    async def _rebalance(self) -> None:
        async with self._turn:
            self._raise_doubt()
            await self.checkpoint.landed()  # else the positions read next may be those before it
            assigned, self._assigned = self._assigned, None
            assert assigned is not None
            try:
                await self.assignment.take(assigned)
            except BrokerError:
                self._try_again_with(assigned)
                raise
            self.pace.ask(self.edges.source, list(self.assignment.tasks.values()))
            self.metrics.rebalanced()
            self.ready.set()

    def _try_again_with(self, assigned: Assigned) -> None:
        """Take an assignment up later, unless there is a newer one by now."""
        if self._assigned is None:
            self._assigned = assigned

    def _raise_doubt(self) -> None:
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            raise doubt
        failed = [task for task in self.assignment.working() if task.state is State.FAILED]
        if failed:
            assert failed[0].failure is not None
            raise failed[0].failure

    # -- what goes wrong ---------------------------------------------------------------------

    async def _answer(self, error: Exception) -> None:
        """Do what an error asks for; raise it if it asks for a person."""
        async with self._turn:
            match error:
                case AgentFailed() | StoreFailed():
                    await self._answer_failed()
                case InputLost():  # making its task anew, after the pause, finds out what is lost
                    task = self.assignment.task_of(error.tp)
                    if task is not None:  # else it is of a position before the one it gets now
                        key = self.assignment.key_of(task)
                        self.assignment.parking.wait(key, error)
                        await self.assignment.drop([key])
                case RecordRefused(cut=TaskCut(task=task) as cut):
                    self.metrics.commit_failed("record refused")
                    self._rule(task, self.assignment.verdicts.on_refusal(cut, error), error)
                    await self._start_over("record refused")
                case AccessDenied():
                    await self._answer_denied(error)
                case CommitRefused():
                    log.warning("%s; going back to the last commit", error)
                    self.metrics.commit_failed("refused")
                    await self._start_over("fenced")
                case CommitUnknown():
                    log.warning("%s; going back to what the broker has committed", error)
                    self.metrics.commit_failed("unknown")
                    await self._start_over("unknown outcome")
                case StoreCorrupted():
                    log.warning("%s", error)
                    self.assignment.forget_store(error.path)
                    await self._start_over("store")
                case BrokerError():
                    log.warning("%s; trying again", error)
                    await asyncio.sleep(RETRY_S)
                    await self._start_over("broker")
                case _:
                    raise error

    async def _answer_denied(self, error: AccessDenied) -> None:
        """Let those tasks wait that a missing permission concerns; all, if it is everybody's."""
        log.error("%s", error)
        concerned = error.tasks or self.assignment.readers_of(error.topics)
        for task in concerned:
            self.assignment.parking.wait(self.assignment.key_of(task), error)
        if not concerned:
            await asyncio.sleep(DENIED_S)
        await self._start_over("access denied")

    async def _start_over(self, cause: str) -> None:
        """Drop what is in memory, fence our own past, go on from the committed positions."""
        self.metrics.producer_opened(cause)
        self._doubt = None
        await self.checkpoint.abandon()
        self.checkpoint = Checkpoint(self.edges, self.metrics)
        await self.assignment.drop(list(self.assignment.tasks))
        pause_s = RETRY_S
        while not self._stopping:
            try:
                await self.edges.outlet.open()
                # else the loop takes up a new assignment, now or when it comes
                if self._assigned is None and self.assignment.is_member():
                    await self.assignment.renew()
            except BrokerError as error:
                log.warning("%s; trying again in %g s", error, pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)
            else:
                return

    async def _answer_failed(self) -> None:
        """Roll tasks that failed back to the last commit; decide about the events."""
        failed = {
            key: task for key, task in self.assignment.tasks.items() if task.state is State.FAILED
        }
        for task in failed.values():
            match getattr(task.failure, "cause", task.failure):
                case StoreCorrupted() as error:  # no fault of the agent's or the event's
                    log.warning("task %s: %s", task.id, error)
                    task.store.clear()
                case StoreFailed() as error:
                    self.assignment.parking.wait(self.assignment.key_of(task), error)
                case _:
                    assert isinstance(task.failure, AgentFailed)
                    self.metrics.agent_failed(task.failure.agent)
                    ruling = self.assignment.verdicts.on_failure(task)
                    self._rule(task, ruling, task.failure)
        try:
            await self.checkpoint.landed()
            await self.assignment.renew(failed)
        except (BrokerError, CommitRefused, CommitUnknown, RecordRefused) as error:
            log.warning("%s; going back to what the broker has committed", error)
            await self._start_over("failed beside an agent")

    def _rule(self, task: Task, ruling: Ruling, error: Exception) -> None:
        """Let a task stand still, if that is the ruling."""
        key = self.assignment.key_of(task)
        if ruling.stop:
            self.assignment.parking.stop(key, ruling.error or error, ruling.stop)
        elif ruling.pause_ms:
            self.assignment.parking.wait(key, error, ruling.pause_ms)

    async def _begin_anew(self, topics: set[str]) -> None:
        """Make the tasks anew that have to do with topics that were created anew."""
        self.world.refuse(topics)
        keys = self.assignment.touching(topics)
        log.warning("created anew: %s; its tasks begin anew", ", ".join(sorted(topics)))
        async with self._turn:
            await self.checkpoint.landed()
            await self.assignment.renew(keys)

    async def _try_parked(self) -> None:
        """Bring the tasks up again whose pause is over."""
        if self.assignment.parking.due():
            async with self._turn:
                await self.assignment.renew([])
