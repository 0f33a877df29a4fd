"""How much at a time: rounds, inboxes, overlays, fetches, and when a commit is due.

Everything that bounds a worker's pace is here: the settings, what is learned of the load
(:mod:`engine.tuning`), and how near the process is to its memory limit (:mod:`engine.memory`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine import tuning
from engine.inbox import PIECE_BYTES
from engine.memory import Pressure

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from engine.checkpoint import Checkpoint
    from engine.clock import Clock
    from engine.config import Config
    from engine.edges import Source
    from engine.metrics import Metrics
    from engine.record import TP
    from engine.task import Task

log = logging.getLogger(__name__)

IDLE_POLL_MS = 100
SHARE_RECORDS = 250
"""The least that one task is given at a time: below it the hand-over costs more than the work."""
INBOX_SHARE = 4
OUTBOX_SHARE = 8  # and as much again may be on its way
OVERLAY_SHARE = 2
"""Of the memory that a worker may hold decoded: one part in so many."""
PIECE_SHARE = 64
"""Of the same: what is taken out of the inboxes in one round, before it is decoded."""
OVERFULL = 2
"""An inbox with so many times its share was asked for too much at a time."""


class Pace:
    """One worker's.

    Attributes:
        handed: records that the last round gave to the tasks.
        tuning: what is known of the load.
    """

    def __init__(self, config: Config, clock: Clock, metrics: Metrics) -> None:
        self.handed = 0
        self.tuning = tuning.Tuning()
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._pressure = Pressure(config.memory_limit)
        self._turns = 0
        self._uncut = 0  # records given to the tasks since the last cut
        self._uncut_bytes = 0  # about what they have made
        self._began_ms = 0.0  # the round
        self._overfull = False
        self._behind = False

    # -- rounds ------------------------------------------------------------------------------

    def share_out(self, tasks: Sequence[Task], *, waiting: bool) -> None:
        """Give the tasks work, in turns, as much as may lie between two looks at the sockets.

        Args:
            waiting: nothing can be committed at the moment.
        """
        self._turns += 1
        self._began_ms = self._clock.elapsed_ms()
        budget = tuning.round_records(self.tuning)
        share = max(budget // max(1, len(tasks)), min(SHARE_RECORDS, budget))
        if waiting:  # a transaction's answers come one after the other, one a round: shorter ones
            budget = 0 if self.laden() else (budget + 1) // 2
        self.handed = 0
        for number in range(len(tasks)):
            if self.handed >= budget:
                break
            self.handed += tasks[(self._turns + number) % len(tasks)].advance(share)
        self._uncut += self.handed
        if self._uncut:
            self._uncut_bytes = sum(task.pending_bytes() for task in tasks)

    def round_ended(self) -> None:
        """The agents have had their turn."""
        if self.handed and self._config.adaptive:
            took_ms = self._clock.elapsed_ms() - self._began_ms
            self.tuning = tuning.after_round(self.tuning, self.handed, took_ms)

    def patience_ms(self, checkpoint: Checkpoint, tasks: Collection[Task], *, waiting: bool) -> int:
        """Return how long a poll may wait: not while there is work, nor beyond the next commit.

        A commit that lands ends the wait (:meth:`engine.checkpoint.Checkpoint.begin`).
        """
        if self.handed:
            return 0
        if waiting:
            return IDLE_POLL_MS
        waited = self._clock.elapsed_ms() - checkpoint.last_ms
        return max(1, min(IDLE_POLL_MS, int(self._interval_now(tasks) - waited)))

    # -- commits -----------------------------------------------------------------------------

    @property
    def interval_ms(self) -> float:
        """The time between two commits."""
        config = self._config
        if not config.adaptive:
            return config.commit_interval_ms
        return tuning.interval_ms(
            self.tuning, config.commit_interval_ms, config.commit_interval_max_ms
        )

    def _interval_now(self, tasks: Collection[Task]) -> float:
        """Return the same; the least of it where everything is done: waiting brings no more."""
        if self.handed or not all(task.inbox.drained() for task in tasks):
            return self.interval_ms
        return self._config.commit_interval_ms

    def is_due(self, checkpoint: Checkpoint, tasks: Collection[Task]) -> bool:
        """Say whether it is time to commit."""
        waited = self._clock.elapsed_ms() - checkpoint.last_ms
        if waited >= self._interval_now(tasks) or self.laden():
            return True
        return any(task.spent for task in tasks)

    def laden(self) -> bool:
        """Say whether so much has been done since the last cut that it should be committed."""
        most = self._decoded_bytes() // OUTBOX_SHARE
        return self._uncut >= self._config.outbox_records or self._uncut_bytes >= most

    def cut(self, checkpoint: Checkpoint, tasks: Collection[Task], source: Source) -> None:
        """A commit begins: learn from the one before, share the memory anew."""
        self._uncut = self._uncut_bytes = 0
        if self._config.adaptive and checkpoint.took_ms:
            self.tuning = tuning.after_commit(
                self.tuning, checkpoint.took_ms, behind=self._behind, overfull=self._overfull
            )
        inputs = [each for task in tasks for each in task.inbox.inputs.values()]
        self._behind = any(each.holds for each in inputs)
        self._overfull = False
        tables = [partition for task in tasks for partition in task.tables.values()]
        for partition in tables:
            partition.bytes_max = self._decoded_bytes() // (OVERLAY_SHARE * len(tables))
        asked = self.ask(source, tasks)
        records = tuning.round_records(self.tuning)
        self._metrics.tuned(self.interval_ms / 1000, records, asked, self._pressure.factor)
        log.debug("commit interval %.0f ms, %d records a round, %d bytes a fetch; %r",
                  self.interval_ms, records, asked, self.tuning)  # fmt: skip

    # -- memory ------------------------------------------------------------------------------

    def _decoded_bytes(self) -> int:
        """Return what may be held decoded, at the moment."""
        return int(self._config.memory_bytes * self._pressure.factor)

    def full(self, tasks: Collection[Task]) -> list[TP]:
        """Return the inputs that must not be polled now: they hold enough."""
        self._pressure.look(self._clock.elapsed_ms())
        inputs = sum(len(task.inbox.inputs) for task in tasks)
        most = self._decoded_bytes() // (INBOX_SHARE * max(1, inputs))
        bound = 1 if self._pressure.full else most  # near the limit, what has come goes first
        full = []
        for task in tasks:
            for tp in task.inbox.full(self._config.inbox_records, bound):
                self._overfull |= task.inbox.inputs[tp].bytes > OVERFULL * most
                full.append(tp)
        return full

    def ask(self, source: Source, tasks: Collection[Task]) -> int:
        """Ask for as much of a partition at a time as there is room for; return how much."""
        inputs = [each for task in tasks for each in task.inbox.inputs.values()]
        piece_bytes = self._decoded_bytes() // (PIECE_SHARE * max(1, len(tasks)))
        for each in inputs:
            each.piece_bytes = min(PIECE_BYTES, piece_bytes)
        room = int(self._config.fetch_memory * self._pressure.factor) // max(1, len(inputs))
        asked = tuning.fetch_bytes(self.tuning, room, self._config.fetch_bytes)
        source.ask_for(asked)
        return asked
