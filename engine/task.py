"""A task: one partition of a sub-topology, with its agents, tables, inbox and outbox.

Its life is drawn in :mod:`engine.life`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine import future, position, rejects
from engine.agent import Runner
from engine.context import Context
from engine.cut import TaskCut
from engine.idle import Idle
from engine.inbox import Inbox, Input
from engine.life import MOVES, State
from engine.operator import Operator
from engine.outbox import Outbox
from engine.record import TP, Batch, Fetched, Output, Piece, Run
from engine.results import writer_for
from engine.stages import stages
from engine.timekeeper import Timekeeper
from engine.verdicts import Poison, Verdicts
from tables.store import META

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.edges import Edges, Position
    from engine.errors import AgentFailed
    from engine.metrics import Metrics
    from engine.topic import Topic
    from engine.topology import SubTopology
    from tables.errors import StateError
    from tables.store import Entry

DEAD_LETTERS = "!dead-letters"
TABLE = "!table"
"""Consumers of an input that are not agents (the names cannot be agents')."""

END_MARK = "headrace.end-of-input"
"""The header of a record that says: this partition ends here, close every window."""


class Task:
    """See the module. Made by :mod:`engine.assignment`, which restores its tables first.

    Args:
        committed: the committed position of each input (None: never committed).
        verdicts: what is known about events that fail.
        end_marks: whether end-of-input marks are heeded (bounded runs only).
        world: the worker's global tables.
        future_limit_ms: events that are further ahead are refused (:mod:`engine.future`); 0: none.
    """

    def __init__(  # noqa: PLR0913
        self,
        part: SubTopology,
        partition: int,
        *,
        edges: Edges,
        metrics: Metrics,
        partitions_of: Callable[[str], int],
        verdicts: Verdicts | None = None,
        end_marks: bool = False,
        window_headers: bool = False,
        world: Mapping[str, Any] = {},
        future_limit_ms: int = 0,
    ) -> None:
        self.part = part
        self.partition = partition
        self.id = f"{part.name}_{partition}"
        self.state = State.CREATED
        self.failure: AgentFailed | StateError | None = None
        self.failed_at: Poison | None = None
        self.failed_with: dict[TP, tuple[int, int]] = {}  # first and last event in hand
        self.outbox = Outbox(partition, part.width, partitions_of)
        self._letters = rejects.DeadLetters(partition, part.inputs, self.outbox, metrics)
        self.tables: dict[str, Any] = {}
        self._edges = edges
        self._metrics = metrics
        self._verdicts = verdicts or Verdicts()
        self._handed = self._piece = 0  # events since the last cut, and in the last piece
        self._last: tuple[TP, int] | None = None  # the last of them
        self._end_marks = end_marks
        self._window_headers = window_headers
        self._world = world
        self._future_limit_ms = future_limit_ms
        self._idle: Idle | None = None
        self._topics: dict[str, Topic] = {topic.name: topic for topic in part.inputs}
        self._sources = part.sources
        self.inbox = Inbox(
            Input(TP(name, partition), is_table=name in self._sources, end=edges.source.end)
            for name in self._topics
        )
        self._done: dict[TP, dict[str, int]] = {tp: {} for tp in self.inbox.inputs}
        self._runners: list[Runner] = []
        self._readers: dict[TP, list[Runner]] = {tp: [] for tp in self.inbox.inputs}
        self._ending = False  # the piece in hand is followed by an end-of-input mark
        self._timekeeper = Timekeeper(
            Context("", self.id, self.tables, self.outbox, world), edges.clock,
            ready=lambda: self.state is State.RUNNING and self.at_boundary(),
            wake=self._quiet, went_on=self._go_on, failed=self.fail,
        )  # fmt: skip
        self._boundary: asyncio.Future[None] | None = None
        self._committed: dict[TP, Position] = {}
        self.membership: Any = None  # under which we own it: set when it is assigned
        self.moved_ms = edges.clock.elapsed_ms()  # when its positions were committed last
        self.topic_ids: Mapping[str, str] = {}  # of its inputs, where the broker tells
        self.store = edges.open_store(self.id, [table.name for table in part.tables])

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.value}>"

    # -- life --------------------------------------------------------------------------------

    def _move_to(self, state: State) -> None:
        assert state in MOVES[self.state], f"task {self.id} cannot go {self.state} -> {state}"
        self.state = state

    def start(self, committed: dict[TP, Position | None]) -> None:
        """Begin to work from the committed positions; the store is restored."""
        self._move_to(State.RUNNING)
        for table in self.part.tables:
            headers = self._window_headers
            emit = writer_for(table, self.outbox, self.partition, with_window=headers)
            self.tables[table.name] = table.open(self.store, emit)
        for table in self.part.tables:
            if isinstance(table, Operator) and table.uses:
                self.tables[table.name].bind(self.tables)
        for node in self.part.nodes:
            name = node.agent.name
            context = Context(name, self.id, self.tables, self.outbox, self._world)
            runner = Runner(
                node.agent, stage=node.stage, context=context, clock=self._edges.clock,
                quiet=self._quiet, failed=self._agent_failed, moved=node.moved, inputs=node.inputs,
            )  # fmt: skip
            self._runners.append(runner)
        self._timekeeper.start(self.part, self._runners)
        for tp, each in self.inbox.inputs.items():
            self._start_input(tp, each, committed.get(tp))
        for runner in self._runners:
            runner.start()
        silent = [(self.tables[t.name], t.idle_ms) for t in self.part.tables if t.idle_ms]
        if silent:
            self._idle = Idle(silent, self._edges.clock, self._edges.source.wake)

    def _start_input(self, tp: TP, each: Input, at: Position | None) -> None:
        offset = each.received = at.offset if at is not None else each.received
        notes = position.unpack(at)
        each.gate = max(each.gate, notes.gate)
        if at is not None:
            self._committed[tp] = at
        done = self._done[tp]
        done[DEAD_LETTERS] = notes.ahead.get(DEAD_LETTERS, offset)
        if each.is_table:
            done[TABLE] = notes.ahead.get(TABLE, offset)
        for runner, node in zip(self._runners, self.part.nodes, strict=True):
            if any(topic.name == tp.topic for topic in node.inputs):
                self._readers[tp].append(runner)
                runner.feed.resume_at(tp, notes.ahead.get(runner.name, offset))
                if (runner.name, tp) in self._verdicts.singly:
                    runner.feed.singly[tp] = self._verdicts.singly[runner.name, tp]
        self._timekeeper.resume(notes.times)
        for name, time in notes.times.items():
            if name in self.tables and hasattr(self.tables[name], "stream_time"):
                self.tables[name].stream_time = time

    async def close(self) -> None:
        """Stop the agents and release the store. What was not committed is gone."""
        if self.state is State.CLOSED:
            return
        self._move_to(State.CLOSED)
        await self._timekeeper.stop()
        if self._idle is not None:
            self._idle.stop()
        for runner in self._runners:
            await runner.stop()
        self.tables.clear()
        self.store.close()

    def fail(self, error: AgentFailed | StateError) -> None:
        """Do no more: the worker makes the task anew, from what is committed."""
        if self.state in {State.FAILED, State.CLOSED}:
            return
        self.failure = error
        self._move_to(State.FAILED)
        self._edges.source.wake()
        self._tell_boundary()

    def _agent_failed(self, runner: Runner, error: AgentFailed) -> None:
        """Note the event that an agent raised on; the worker rolls the task back."""
        if self.state in {State.FAILED, State.CLOSED}:
            return
        context = runner.context
        if context.run is not None:
            self.failed_with = runner.feed.in_hand()
            if context.run.offsets:
                offset = context.run.offsets[context.index]
                self.failed_at = Poison(runner.name, context.run.tp, offset)
        self.fail(error)

    # -- in ----------------------------------------------------------------------------------

    def receive(self, fetched: Fetched) -> None:
        """Queue what one poll brought for one input."""
        self.inbox.inputs[fetched.tp].add(fetched)

    def advance(self, limit: int) -> int:
        """Give the agents their next events, if they are done with the last ones.

        Called by the loop, which shares out how many records are worked on between two looks at
        the sockets. Returns how many records were handed over; 0: nothing to do, or not yet.
        """
        if self.state is not State.RUNNING or any(r.feed.busy for r in self._runners):
            return 0
        if not self._timekeeper.at_rest():
            self._timekeeper.look()
            return 0
        self._finish()
        limit = self._limit(limit)
        before = stages.switch("poll")
        batch = self.inbox.next(limit) if limit > 0 else None
        stages.switch(before if batch is None else "decode")
        if batch is None:
            if self._idle is not None and self._idle.due:
                held = any(runner.feed.holding for runner in self._runners)
                self._idle.look(silent=self.inbox.drained() and not held)
            return 0
        piece = self._decode(batch)
        stages.switch(before)
        self._begin(piece)
        return len(batch) or 1

    def _decode(self, batch: Batch) -> Piece:
        """Decode and check all of a batch."""
        topic = self._topics[batch.tp.topic]
        run, checked = topic.decode(batch)
        if self._future_limit_ms and topic.name not in self._sources:
            now_ms = self._edges.clock.now_ms()
            run = future.refuse(run, batch, checked, now_ms, self._future_limit_ms)
        refused = [rejects.dead_letter(topic, batch, *broken) for broken in checked.broken]
        if self._end_marks and (marks := batch.with_header(END_MARK)):
            run = run.without(marks)  # a null value: some contracts refuse it, others do not
            run.ends = True
            refused = [row for row in refused if row[0] not in marks]
        self._metrics.received(batch.tp.topic, len(run), checked)
        return Piece(run, refused)

    def _limit(self, limit: int) -> int:
        """Return how many events may be handed out, where it matters which.

        A poisoned event is alone: its dead letter must be committed with its own position.
        """
        verdicts, inputs = self._verdicts, self.inbox.inputs
        for poison in verdicts.poison:
            if poison.tp in inputs:
                limit = min(limit, inputs[poison.tp].room_before(poison.offset))
        for (_, tp), (first, last) in verdicts.singly.items():
            if tp in inputs and (at := inputs[tp].next_offset()) <= last:
                limit = min(limit, 1 if at >= first else inputs[tp].room_before(first))
        if self.id in verdicts.quotas:
            limit = min(limit, verdicts.quotas[self.id].limit - self._handed)
        return limit

    @property
    def spent(self) -> bool:
        """Whether it may hand out nothing more before the next cut."""
        quota = self._verdicts.quotas.get(self.id)
        return quota is not None and self._handed >= quota.limit

    def _begin(self, piece: Piece) -> None:
        """Bring one piece into the task: dead letters, tables that are topics, agents."""
        run = piece.run
        done = self._done[run.tp]
        self._piece = len(run)
        self._handed += self._piece
        if run.offsets:
            self._last = run.tp, run.offsets[-1]
        self._letters.begin(piece)
        if self._idle is not None:
            self._idle.touched()
        table = self._sources.get(run.tp.topic)
        if table is not None:
            new = run.since(done[TABLE])
            self.tables[table.name].follow(new.keys, new.events, new.values, new.times)
            done[TABLE] = max(done[TABLE], run.next_offset)
        self._ending = run.ends
        for runner in self._readers[run.tp]:
            share = self._share(runner, run)
            if share.offsets or (share.ends and runner.agent.operators):
                runner.feed.give(share)
            else:
                runner.feed.resume_at(run.tp, run.next_offset)

    def _finish(self) -> None:
        """The agents are through with a piece: an end of input closes windows and sessions.

        Operators are closed by the agents' own streams, through which their results go.
        """
        ended, self._ending = self._ending, False
        for table in self.part.tables if ended else ():
            if not isinstance(table, Operator) and hasattr(self.tables[table.name], "close_all"):
                self.tables[table.name].close_all()

    def _share(self, runner: Runner, run: Run) -> Run:
        """Return what of a run an agent has still to do: not what lies behind it, nor poison."""
        run = run.since(runner.feed.positions().get(run.tp, 0))
        for (agent, tp, offset), error in self._verdicts.poison.items():
            if agent == runner.name and tp == run.tp and offset in run.offsets:
                if runner.agent.policy.outcome == "dead_letter" and error.letter:
                    self._letters.add(run, run.offsets.index(offset), error)
                if runner.agent.operators:  # it counts there: what fails may be somebody else's
                    runner.feed.spoiled.add((tp, offset))
                else:
                    run = run.without({offset})
        return run

    # -- boundaries --------------------------------------------------------------------------

    def _quiet(self) -> None:
        """An agent has come to a boundary: the loop may have more for it."""
        self._edges.source.wake()
        self._tell_boundary()
        self._timekeeper.look()

    def _go_on(self) -> None:
        """Let the agents go on: a commit is cut, or what was due has been called."""
        if self.state is State.RUNNING:
            for runner in self._runners:
                runner.feed.go_on()
        self._tell_boundary()

    def _tell_boundary(self) -> None:
        if self._boundary is not None and not self._boundary.done():
            self._boundary.set_result(None)

    async def _next_boundary(self) -> None:
        if self._boundary is None or self._boundary.done():
            self._boundary = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._boundary)

    def at_boundary(self) -> bool:
        """Say whether every agent is between two events, and no timer is being called."""
        return not self._timekeeper.busy and all(r.feed.at_boundary() for r in self._runners)

    def pending_bytes(self) -> int:
        """Return about how much memory its work since the last cut takes."""
        dirty: int = sum(table.dirty() for table in self.tables.values())
        return dirty + self.outbox.bytes()

    def idle(self) -> bool:
        """Say whether nothing waits and every agent has asked for more."""
        waiting = any(each.holds for each in self.inbox.inputs.values())
        asking = all(runner.feed.asking for runner in self._runners)
        return asking and not waiting and not self._ending and self._timekeeper.at_rest()

    async def hold(self) -> None:
        """Finish the events in hand and take no more, until :meth:`release`."""
        if self.state is State.RUNNING:
            self._move_to(State.HOLDING)
        for runner in self._runners:
            runner.feed.pause()
        while self.state is State.HOLDING and not self.at_boundary():
            await self._next_boundary()

    def release(self) -> None:
        """Go on after :meth:`hold`."""
        if self.state is State.HOLDING:
            self._move_to(State.RUNNING)
            self._go_on()

    # -- out ---------------------------------------------------------------------------------

    def cut(self) -> TaskCut | None:
        """Take everything that is done out of the task, at a boundary; None if nothing is.

        The task goes on at once: its next events change the overlay, not what was cut.
        """
        assert self.at_boundary(), f"task {self.id} was cut in the middle of an event"
        if not any(runner.feed.busy for runner in self._runners):
            self._finish()  # the positions below are beyond the mark: so must be its effect
        self._bury()
        changelogs: dict[TP, list[Output]] = {}
        store: dict[str, list[Entry]] = {}
        now = self._edges.clock.now_ms()
        for table in self.part.tables:
            cut = self.tables[table.name].cut()
            if table.changelog is not None and cut.changelog:
                tp = TP(table.changelog.name, self.partition)
                changelogs[tp] = [(key, value, now, ()) for key, value in cut.changelog]
            for family, changes in cut.store.items():
                store.setdefault(family, []).extend(changes)
        positions = self._positions()
        rows = self.outbox.cut()
        if (rows or changelogs) and not positions:  # of timers: who commits is told by positions
            positions = self._positions(unchanged=True)
        if not positions and not rows and not changelogs and not any(store.values()):
            self._handed = 0  # held back, all of it
            return None
        before, handed, last = self._committed, self._handed, self._last
        self._committed = before | positions
        halfway = any(runner.feed.busy for runner in self._runners)  # the rest comes later
        self._handed, self._last = (self._piece, last) if halfway else (0, None)
        return TaskCut(self, rows, changelogs, positions, store, before, handed, last)

    def _bury(self) -> None:
        """Write the dead letters that every agent has passed."""
        for tp, begun in self._letters.begun.items():
            done, readers = self._done[tp], self._readers[tp]
            passed = min((r.feed.positions().get(tp, 0) for r in readers), default=begun)
            self._letters.bury(tp.topic, done[DEAD_LETTERS], passed)
            done[DEAD_LETTERS] = max(done[DEAD_LETTERS], passed)

    def _positions(self, *, unchanged: bool = False) -> dict[TP, Position]:
        """Return the positions that have changed since the last cut, or all of them."""
        times = {
            name: partition.stream_time
            for name, partition in self.tables.items()
            if getattr(partition, "stream_time", -1) >= 0
        } | self._timekeeper.times()
        readers = {runner.name: runner.feed.positions() for runner in self._runners}
        consumers = {
            tp: done | {name: at[tp] for name, at in readers.items() if tp in at}
            for tp, done in self._done.items()
        }
        gates = {tp: each.gate for tp, each in self.inbox.inputs.items()}
        packed = position.pack_all(consumers, times, gates, self.topic_ids)
        return {tp: at for tp, at in packed.items() if unchanged or at != self._committed.get(tp)}

    def was_at(self, committed: Mapping[TP, Position | None]) -> None:
        """Note what is committed, where it began somewhere else: behind a gap."""
        self._committed = {tp: at for tp, at in committed.items() if at is not None}

    def is_at(self, committed: Mapping[TP, Position | None]) -> bool:
        """Say whether these positions are the ones that this task committed last."""
        return all(committed.get(tp) == self._committed.get(tp) for tp in self.inbox.inputs)

    def committed(self, cut: TaskCut, ends: dict[TP, int]) -> None:
        """Kafka has the cut: bring it to the store, with where the changelogs are now."""
        self.store.write({**cut.store, META: cut.notes(ends, self._edges.clock.now_ms())})
        self._verdicts.passed(self.id, cut.positions)
        self.moved_ms = self._edges.clock.elapsed_ms()
        for partition in self.tables.values():
            partition.committed()
