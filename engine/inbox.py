"""What has come for a task and waits: one queue an input, taken by timestamp.

It waits as it came, packed. Some hundreds of records at a time are unpacked and decoded when their
turn comes (:meth:`engine.task.Task.advance`): a fetch of thousands would be out of the processor's
cache before the agents see it, and takes several times the memory while it waits.

Joins must be repeatable, so inputs are interleaved by their records' timestamps, and an input that
is empty but known to have more holds the others back (as Kafka Streams does with max.task.idle.ms
= 0). On the very first start a table that is a topic is read up to where it then ended before any
stream flows: a join must not depend on which topic the broker happened to send first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

from engine.record import TP, Batch, Fetched

_NO_LIMIT = 1 << 62
PIECE_BYTES = 4 << 20
"""A piece is no larger, but for one record: it comes to be in memory several times, decoded, kept
and encoded."""

UNPACKED = 500
"""So many records are unpacked at a time, about."""


class Input:
    """One input partition of a task.

    Attributes:
        received: the offset up to which records have come in.
        gate: a table's topic on the first start: streams wait until it was read up to here.
        end: tells the last known end of the partition, or None.
        piece_bytes: so much is taken at a time, about, but at least one record.
    """

    __slots__ = (
        "_head", "_start", "_waiting", "end", "gate", "is_table", "piece_bytes", "received", "tp",
    )  # fmt: skip

    def __init__(self, tp: TP, *, is_table: bool, end: Callable[[TP], int | None]) -> None:
        self.tp = tp
        self.is_table = is_table
        self.end = end
        self.received = 0
        self.gate = 0
        self.piece_bytes = PIECE_BYTES
        self._head: Batch | None = None  # what is unpacked
        self._start = 0  # how much of it has been taken already
        self._waiting: deque[Fetched] = deque()

    def begin(self, first: int, end: int) -> None:
        """Begin at the first record that is still there: nobody has read the partition before."""
        self.received = first
        self.gate = end if self.is_table else 0

    def caught_up(self) -> bool:
        """Say whether everything that the partition is known to hold has been received."""
        end = self.end(self.tp)
        return end is not None and self.received >= end

    def add(self, fetched: Fetched) -> None:
        """Queue what one poll brought."""
        self._waiting.append(fetched)
        self.received = fetched.next_offset

    @property
    def holds(self) -> bool:
        """Whether anything waits, be it no more than an end."""
        return self._head is not None or bool(self._waiting)

    @property
    def records(self) -> int:
        """How many records wait, about."""
        unpacked = 0 if self._head is None else len(self._head) - self._start
        return unpacked + sum([fetched.records for fetched in self._waiting])

    @property
    def bytes(self) -> int:
        """How much memory they take, about."""
        head = self._head
        unpacked = 0 if head is None else (len(head) - self._start) * head.record_bytes
        return unpacked + sum([fetched.bytes for fetched in self._waiting])

    def head(self) -> Batch:
        """Return the batch that is taken from, unpacked; only if the input holds something."""
        if self._head is None:
            self._head, left = self._waiting[0].unpack(UNPACKED)
            if left is None:
                self._waiting.popleft()
            if self._head.largest is None:
                self._head.measure()
            self._start = 0
        return self._head

    def head_time(self) -> int:
        """Return the timestamp of the next record; an empty batch counts as oldest."""
        times = self.head().timestamps
        return times[self._start] if times else -1

    def rank(self) -> tuple[bool, TP]:
        """Return who goes first at equal timestamps: a table's update, then by topic."""
        return not self.is_table, self.tp

    def take(self, limit: int, until: int | None = None, below: int | None = None) -> Batch:
        """Take up to ``limit`` records of the first batch, and at least one.

        Args:
            until: only those before the first with a later timestamp.
            below: only those with lower offsets.
        """
        batch, start = self.head(), self._start
        size = len(batch)
        stop = min(size, start + limit, start + max(1, self.piece_bytes // batch.record_bytes))
        if below is not None:
            stop = min(stop, max(start + 1, bisect_left(batch.offsets, below)))
        if until is not None:
            times = batch.timestamps[start:stop]
            first_later = next((i for i, time in enumerate(times) if time > until), len(times))
            stop = start + max(1, first_later) if times else stop
        if stop >= size:
            self._head = None
        else:
            self._start = stop
        return batch if start == 0 and stop >= size else batch.part(start, stop)

    def room_before(self, offset: int) -> int:
        """Return how many records can be taken without ``offset``; 1 when it is the next one."""
        offsets = self.head().offsets if self.holds else []
        if not offsets or offset < offsets[self._start]:
            return _NO_LIMIT
        return max(1, bisect_left(offsets, offset, self._start) - self._start)

    def next_offset(self) -> int:
        """Return the offset at which the next batch begins, or would begin."""
        if not self.holds:
            return self.received
        batch = self.head()
        return batch.offsets[self._start] if batch.offsets else batch.next_offset


class Inbox:
    """All inputs of a task."""

    __slots__ = ("inputs",)

    def __init__(self, inputs: Iterable[Input]) -> None:
        self.inputs = {each.tp: each for each in inputs}

    def full(self, records: int, most: int) -> list[TP]:
        """Return the inputs that hold so many records, or so many bytes, or more."""
        return [
            each.tp for each in self.inputs.values()
            if each.records >= records or each.bytes >= most
        ]  # fmt: skip

    def drained(self) -> bool:
        """Say whether nothing waits, and no input is known to have more."""
        return all(each.caught_up() and not each.holds for each in self.inputs.values())

    def next(self, limit: int) -> Batch | None:
        """Return the next records to work on, up to ``limit``; None: none is ready."""
        ready = [each for each in self.inputs.values() if each.holds]
        if not ready:
            return None
        gated = [each for each in self.inputs.values() if each.next_offset() < each.gate]
        if gated:
            first = next((each for each in gated if each.holds), None)
            return None if first is None else first.take(limit, below=first.gate)
        if any(not each.holds and not each.caught_up() for each in self.inputs.values()):
            return None
        if len(ready) == 1:
            return ready[0].take(limit)
        ready.sort(key=lambda each: (each.head_time(), each.rank()))
        first, second = ready[:2]
        return first.take(limit, second.head_time() - (first.rank() > second.rank()))
