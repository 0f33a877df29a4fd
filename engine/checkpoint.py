"""The commit: outputs, dead letters, changelogs and input offsets in one transaction.

Steps, numbered as in the body:

1. Bring each task to a boundary: the events in hand finish, no new one starts.
2. Cut: encode each dirty table entry once, drain the outboxes, take the positions. The tasks go on
   at once; while Kafka works, they fill the next cut.
3. Send everything, and await every send.
4. Put the offsets into the transaction, with the group membership under which the tasks were
   assigned: the consumer's own is ahead of it while a rebalance is on its way.
5. End the transaction, under a deadline. (3 to 5 are the outlet's: engine/kafka/producer.py.)
6. Write each task's changes to its store in one batch: data, timers, changelog offset, positions.
   Where that fails (a full disk), the task is made anew, and takes them from the changelogs.
7. Refused or unknown: say so to the caller, who drops every task's memory, opens the outlet anew
   (which decides the transaction's fate) and starts again from the committed positions. Nothing is
   ever retried on the same producer.

At most one transaction is in flight. A task that does not come to a boundary in time (an agent that
awaits something slow) is left out and keeps its work for the next commit.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from engine import crashpoint
from engine.edges import Transaction
from engine.errors import AccessDenied, CommitUnknown, RecordRefused
from engine.life import State
from engine.stages import charged, stages
from tables.errors import StoreCorrupted, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.cut import TaskCut
    from engine.edges import Edges, Position
    from engine.metrics import Metrics
    from engine.record import TP, Output
    from engine.task import Task

log = logging.getLogger(__name__)

BOUNDARY_WAIT_S = 0.05


class Checkpoint:
    """The commits of one worker.

    Attributes:
        failed: why a commit did; what was done after it must not be committed without it.
        took_ms: what the last transaction took.
    """

    def __init__(self, edges: Edges, metrics: Metrics) -> None:
        self._edges = edges
        self._metrics = metrics
        self._flight: asyncio.Task[None] | None = None
        self.failed = ""
        self.last_ms = edges.clock.elapsed_ms()
        self.took_ms = 0.0

    @property
    def in_flight(self) -> bool:
        """Whether a transaction is under way."""
        return self._flight is not None and not self._flight.done()

    async def begin(self, tasks: Collection[Task], *, wait_s: float = BOUNDARY_WAIT_S) -> None:
        """Cut what is done (steps 1 and 2) and send it on its way, after the one before landed.

        Raises:
            CommitRefused, CommitUnknown, RecordRefused: the commit *before* this one failed.
        """
        await self.landed()
        if self.failed:
            raise CommitUnknown(f"nothing is committed on top of a failed commit ({self.failed})")
        self.last_ms = self._edges.clock.elapsed_ms()
        cuts = await self._cut(tasks, wait_s)
        if cuts:
            self._flight = asyncio.get_running_loop().create_task(
                charged("commit", partial(self._deliver, cuts, cuts[0].task.membership)),
                name="commit",
            )
            self._flight.add_done_callback(lambda _: self._edges.source.wake())

    async def landed(self) -> None:
        """Wait for the transaction under way, if there is one; raise what it raised."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self.failed = "it was not waited for"
            try:
                await flight
            except Exception as error:
                self.failed = repr(error)  # never empty
                raise
            self.failed = ""

    async def abandon(self) -> None:
        """End the transaction under way, wherever it is: opening the outlet decides its fate.

        It must be gone before: it would go on with the new producer, in the next transaction.
        """
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
            await asyncio.wait([flight])

    async def _cut(self, tasks: Collection[Task], wait_s: float) -> list[TaskCut]:
        running = [task for task in tasks if task.state in {State.RUNNING, State.HOLDING}]
        # 1. to a boundary
        slow = [task for task in running if not task.at_boundary()]
        if slow:
            try:
                async with asyncio.timeout(wait_s), asyncio.TaskGroup() as group:
                    for task in slow:
                        group.create_task(task.hold())
            except TimeoutError:
                log.debug("left out of this commit: %s", [t for t in slow if not t.at_boundary()])
        # 2. cut: no await from here to the end
        before = stages.switch("cut")
        cuts = []
        for task in running:
            if task.state in {State.RUNNING, State.HOLDING} and task.at_boundary():
                cut = task.cut()
                if cut is not None:
                    cuts.append(cut)
        stages.switch(before)
        for task in slow:
            task.release()
        return cuts

    async def _deliver(self, cuts: list[TaskCut], membership: object) -> None:
        """Steps 3 to 6: all tasks in one transaction, or each in its own."""
        if not self._edges.outlet.per_task:
            await self._land(cuts, membership)
            return
        landed = await asyncio.gather(
            *(self._land([cut], membership) for cut in cuts), return_exceptions=True
        )
        for failure in landed:  # only now: what did land is in the stores
            if failure is not None:
                raise failure

    async def _land(self, cuts: list[TaskCut], membership: object) -> None:
        """Bring cuts to Kafka in one transaction, then to their stores."""
        began = self._edges.clock.elapsed_ms()
        rows: dict[TP, list[Output]] = {}
        positions: dict[TP, Position] = {}
        for cut in cuts:
            positions |= cut.positions
            for part in (cut.rows, cut.changelogs):
                for tp, outputs in part.items():
                    rows.setdefault(tp, []).extend(outputs)  # a list of our own: cuts keep theirs
        crashpoint.reach_with(cuts)
        # 3, 4, 5
        try:
            ends = await self._edges.outlet.commit(
                Transaction(rows, positions, membership, cuts[0].task.id)
            )
        except RecordRefused as error:
            _find(error, cuts)
            raise
        except AccessDenied as error:
            error.tasks = [cut.task for cut in cuts if _touches(cut, error.topics)]
            raise
        crashpoint.reach("committed")
        # 6. the store follows Kafka, never leads it
        before = stages.switch("store")
        _store(cuts, ends)
        stages.switch(before)
        sent: dict[str, int] = {}
        for tp, outputs in rows.items():
            sent[tp.topic] = sent.get(tp.topic, 0) + len(outputs)
        clock = self._edges.clock
        self.took_ms = clock.elapsed_ms() - began
        self._metrics.committed(sent, self.took_ms / 1000, clock.now_ms())


def _store(cuts: list[TaskCut], ends: dict[TP, int]) -> None:
    for cut in cuts:
        if cut.task.state is not State.CLOSED:
            try:
                cut.task.committed(cut, ends)
            except (StoreFailed, StoreCorrupted) as error:  # the changelogs have it
                cut.task.fail(error)
            if cut is not cuts[-1]:
                crashpoint.reach("between-writes")


def _find(error: RecordRefused, cuts: list[TaskCut]) -> None:
    """Find the cut that a refused record is part of, and its key."""
    if error.tp is None:
        return
    left = error.index or 0
    for cut in cuts:
        for part in (cut.rows, cut.changelogs):  # in the order in which they were put together
            rows = part.get(error.tp, ())
            if left < len(rows):
                error.cut, error.key = cut, rows[left][0]
                return
            left -= len(rows)


def _touches(cut: TaskCut, topics: Collection[str]) -> bool:
    """Say whether a cut has to do with one of these topics; with none given, all have."""
    tps = (*cut.rows, *cut.changelogs, *cut.positions)
    return not topics or any(tp.topic in topics for tp in tps)
