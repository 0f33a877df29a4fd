"""What has come for a task and waits: decoded runs, one queue an input, taken by timestamp.

Joins must be repeatable, so inputs are interleaved by their records' timestamps, and an input that
is empty but known to have more holds the others back (as Kafka Streams does with max.task.idle.ms
= 0). On the very first start a table that is a topic is read up to where it then ended before any
stream flows: a join must not depend on which topic the broker happened to send first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.record import TP, Headers, Run

Refused = tuple[int, bytes | None, bytes | None, int, Headers]
"""A record for the dead letters: offset, key, value, timestamp (ms), headers with the reason."""


class Piece(NamedTuple):
    """The next piece of work: a run of good records, and what was refused around them."""

    run: Run
    refused: list[Refused]


class Input:
    """One input partition of a task.

    Attributes:
        received: the offset up to which records have come in.
        gate: a table's topic on the first start: streams wait until it was read up to here.
        end: tells the last known end of the partition, or None.
    """

    __slots__ = ("end", "gate", "is_table", "queue", "received", "records", "tp")

    def __init__(self, tp: TP, *, is_table: bool, end: Callable[[TP], int | None]) -> None:
        self.tp = tp
        self.is_table = is_table
        self.end = end
        self.received = 0
        self.gate = 0
        self.records = 0
        self.queue: deque[Piece] = deque()

    def caught_up(self) -> bool:
        """Say whether everything that the partition is known to hold has been received."""
        end = self.end(self.tp)
        return end is not None and self.received >= end

    def add(self, piece: Piece) -> None:
        """Queue what one poll brought."""
        self.queue.append(piece)
        self.records += len(piece.run)
        self.received = piece.run.next_offset

    def head_time(self) -> int:
        """Return the timestamp of the first queued record; an empty run counts as oldest."""
        run = self.queue[0].run
        return run.timestamps[0] if run.timestamps else -1

    def before_gate(self) -> bool:
        """Say whether what streams must wait for is still to come, or waits here."""
        if self.received < self.gate:
            return True
        return bool(self.queue) and _first_offset(self.queue[0].run) < self.gate

    def rank(self) -> tuple[bool, TP]:
        """Return who goes first at equal timestamps: a table's update, then by topic."""
        return not self.is_table, self.tp

    def take_all(self) -> Piece:
        """Take the first piece."""
        piece = self.queue.popleft()
        self.records -= len(piece.run)
        return piece

    def take_until(self, other: Input) -> Piece:
        """Take the beginning of the first piece: what goes before the head of ``other``."""
        until = other.head_time() - (self.rank() > other.rank())
        times = self.queue[0].run.timestamps
        return self._take(next((i for i, time in enumerate(times) if time > until), len(times)))

    def take_to_gate(self) -> Piece:
        """Take what of the first piece lies below the gate."""
        return self._take(bisect_left(self.queue[0].run.offsets, self.gate))

    def _take(self, stop: int) -> Piece:
        """Take the first ``stop`` records of the first piece, at least one."""
        piece = self.queue[0]
        run = piece.run
        stop = max(stop, 1)
        if stop >= len(run):
            return self.take_all()
        first = run.part(0, stop)
        early = [row for row in piece.refused if row[0] < first.next_offset]
        self.queue[0] = Piece(run.part(stop, len(run)), piece.refused[len(early) :])
        self.records -= stop
        return Piece(first, early)


def _first_offset(run: Run) -> int:
    return run.offsets[0] if run.offsets else run.next_offset - 1


class Inbox:
    """All inputs of a task."""

    __slots__ = ("inputs",)

    def __init__(self, inputs: Iterable[Input]) -> None:
        self.inputs = {each.tp: each for each in inputs}

    def full(self, limit: int) -> list[TP]:
        """Return the inputs that hold ``limit`` records or more."""
        return [each.tp for each in self.inputs.values() if each.records >= limit]

    def next(self) -> Piece | None:
        """Return the next piece of work, or None when there is none yet."""
        ready = [each for each in self.inputs.values() if each.queue]
        if not ready:
            return None
        gated = [each for each in self.inputs.values() if each.before_gate()]
        if gated:
            there = [each for each in gated if each.queue]
            return there[0].take_to_gate() if there else None
        if any(not each.queue and not each.caught_up() for each in self.inputs.values()):
            return None
        if len(ready) == 1:
            return ready[0].take_all()
        ready.sort(key=lambda each: (each.head_time(), each.rank()))
        return ready[0].take_until(ready[1])
