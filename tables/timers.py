"""Timers of a task: (time, owner, key), in the order of time, in the task's own store.

They survive restarts because they are committed with the data, and they cost no memory for being
many: only those below a horizon are in the heap, the rest stay in the store until time gets there.
A timer is a hint and never a promise: whoever owns it looks at the state again when it fires, so a
timer that has been overtaken by events is simply set again (sessions: one timer write per gap
instead of one per event).
"""

from __future__ import annotations

from heapq import heappop, heappush, nsmallest
from typing import TYPE_CHECKING

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.store import TIMERS
from tables.table import ENTRY_BYTES, Cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tables.store import Change, Store

_CHUNK = 10_000
_HEAP_CHUNKS = 4
_END = b"\xff" * 64  # above every composite key
NEVER = 1 << 62
"""A time (ms) that does not come."""


def timer_rows(owner: str, timers: Iterable[tuple[int, bytes]]) -> list[Change]:
    """Return the store's entries for timers, given as time (ms) and key."""
    prefix = owner.encode() + b"\0"
    return [(prefix + encode_time(time_ms) + key, b"") for time_ms, key in timers]


class Timers:
    """The timers of one table partition.

    Args:
        owner: the table's name; timers of several tables share one column family.
        store: the task's store.
        chunk: how many are read from the store at a time; the heap holds up to four times as many.
    """

    __slots__ = (
        "_chunk", "_flying", "_heap", "_horizon", "_known", "_pending", "_prefix", "_store",
        "next_ms",
    )  # fmt: skip

    def __init__(self, owner: str, store: Store, *, chunk: int = _CHUNK) -> None:
        self._chunk = chunk
        self._prefix = owner.encode() + b"\0"
        self._store = store
        self._pending: dict[bytes, bool] = {}  # uncommitted: True is set, False is removed
        self._flying: dict[bytes, bool] = {}  # cut, but not yet in the store
        self._heap: list[bytes] = []
        self._known: set[bytes] = set()  # what is in the heap
        self._horizon = b""  # the heap holds every timer below it
        self.next_ms = NEVER
        self._refill()

    def set(self, time_ms: int, key: bytes) -> None:
        """Fire for ``key`` once time has reached ``time_ms``."""
        timer = encode_time(time_ms) + key
        if timer in self._known or self._pending.get(timer):
            return
        self._pending[timer] = True
        if timer < self._horizon:
            heappush(self._heap, timer)
            self._known.add(timer)
            self.next_ms = min(self.next_ms, time_ms)
            if len(self._heap) > _HEAP_CHUNKS * self._chunk:
                self._shrink()

    def cancel(self, time_ms: int, key: bytes) -> None:
        """Do not fire for ``key`` at that time; one that is not set is none."""
        timer = encode_time(time_ms) + key
        self._pending[timer] = False
        if timer in self._known:
            self._known.discard(timer)  # it stays in the heap until it is on top
            self._settle()

    def due(self, time_ms: int) -> list[bytes]:
        """Remove the timers at or before ``time_ms`` and return their keys, in order."""
        keys: list[bytes] = []
        while self.next_ms <= time_ms:
            keys.append(self.pop()[TIME_BYTES:])
        return keys

    def pop(self) -> bytes:
        """Remove the first timer and return it, time first; only if ``next_ms`` says there is one.

        Those that are set meanwhile come in their turn.
        """
        timer = heappop(self._heap)
        self._known.discard(timer)
        self._pending[timer] = False
        self._settle()
        return timer

    def _settle(self) -> None:
        """Find out which timer is the next."""
        heap, known = self._heap, self._known
        while heap and heap[0] not in known:  # cancelled
            heappop(heap)
        if heap:
            self.next_ms = decode_time(heap[0])
        else:
            self._refill()

    def _shrink(self) -> None:
        """Leave the later timers to the store (and to what is on its way there)."""
        self._heap = nsmallest(self._chunk, self._known)  # sorted, so it is a heap
        self._known = set(self._heap)
        self._horizon = self._heap[-1] + b"\0"

    def _refill(self) -> None:
        """Take the next timers from the store and the uncommitted ones; move the horizon."""
        prefix = self._prefix
        skip = len(prefix)
        changed = {} if self._horizon == _END else {**self._flying, **self._pending}
        while not self._heap and self._horizon != _END:
            rows = self._store.scan(TIMERS, prefix + self._horizon, prefix + _END, self._chunk)
            stored = [key[skip:] for key, _ in rows]
            horizon = stored[-1] + b"\0" if len(rows) == self._chunk else _END
            timers = {timer for timer in stored if changed.get(timer) is not False}
            for timer, alive in changed.items():
                if alive and self._horizon <= timer < horizon:
                    timers.add(timer)
            self._horizon = horizon
            self._heap = sorted(timers)
            self._known = timers
        self.next_ms = decode_time(self._heap[0]) if self._heap else NEVER

    def all(self) -> list[bytes]:
        """Return every timer, in order, time first."""
        changed = {**self._flying, **self._pending}
        rows = self._store.scan(TIMERS, self._prefix, self._prefix + _END)
        timers = {key[len(self._prefix) :] for key, _ in rows}
        timers |= {timer for timer, alive in changed.items() if alive}
        return sorted(timer for timer in timers if changed.get(timer) is not False)

    def stored(self) -> Iterator[list[bytes]]:
        """Yield the keys of all timers in the store, some at a time."""
        start, end = self._prefix, self._prefix + _END
        while rows := self._store.scan(TIMERS, start, end, self._chunk):
            yield [timer[len(self._prefix) + TIME_BYTES :] for timer, _ in rows]
            start = rows[-1][0] + b"\0"

    def cut(self) -> list[Change]:
        """Return the changes since the last cut, for the store (the changelog needs no timers)."""
        prefix = self._prefix
        self._flying, self._pending = self._pending, {}
        return [(prefix + timer, b"" if alive else None) for timer, alive in self._flying.items()]

    def committed(self) -> None:
        """The last cut is in the store."""
        self._flying = {}


_SET = b"1"
"""What the changelog says of a timer that is set; a tombstone says that it has fired."""


class TimerPartition:
    """The timers that a table's user sets, for one partition; see :class:`Timers`.

    They follow from nothing else, so they have a changelog of their own.

    Attributes:
        stream_time: up to where they may fire (ms), kept with the committed positions.
        next_ms: the time of the first.
    """

    __slots__ = (
        "_timers", "bytes_max", "cache_entries", "changed", "entry_bytes", "family", "stream_time",
    )  # fmt: skip

    def __init__(self, family: str, store: Store, *, chunk: int = _CHUNK) -> None:
        self.family = family
        self.stream_time = -NEVER
        self.bytes_max = self.cache_entries = NEVER  # the heap is bounded by itself
        self.entry_bytes = ENTRY_BYTES
        self.changed = 0
        self._timers = Timers(family, store, chunk=chunk)

    @property
    def next_ms(self) -> int:
        """The time of the first; NEVER of none."""
        return self._timers.next_ms

    def set(self, time_ms: int, key: bytes) -> None:
        """Let one fire once stream time has reached ``time_ms``; the same twice is one."""
        self._timers.set(time_ms, key)
        self.changed += 1

    def cancel(self, time_ms: int, key: bytes) -> None:
        """Take one back."""
        self._timers.cancel(time_ms, key)
        self.changed += 1

    def pop(self) -> tuple[int, bytes]:
        """Remove the first, which is due, and return its time (ms) and key."""
        self.changed += 1
        timer = self._timers.pop()
        return decode_time(timer), timer[TIME_BYTES:]

    def items(self) -> list[tuple[int, bytes]]:
        """Return time and key of every timer, in order."""
        return [(decode_time(timer), timer[TIME_BYTES:]) for timer in self._timers.all()]

    def cut(self) -> Cut:
        """Return what changed since the last cut."""
        self.changed = 0
        rows = self._timers.cut()
        skip = len(self.family) + 1
        log = [(key[skip:], None if value is None else _SET) for key, value in rows]
        return Cut(log, {TIMERS: rows})

    def held(self) -> int:
        """Return about how many bytes of memory they take: those that are not written yet."""
        return self.dirty()

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return self.changed * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store."""
        self._timers.committed()


def restored(family: str, changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records."""
    prefix = family.encode() + b"\0"
    rows: list[Change] = [(prefix + key, None if value is None else b"") for key, value in changes]
    return {TIMERS: rows}
