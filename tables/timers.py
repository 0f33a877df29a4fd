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

    def due(self, time_ms: int) -> list[bytes]:
        """Remove the timers at or before ``time_ms`` and return their keys, in order."""
        keys: list[bytes] = []
        while self.next_ms <= time_ms:
            timer = heappop(self._heap)
            self._known.discard(timer)
            self._pending[timer] = False
            keys.append(timer[TIME_BYTES:])
            if self._heap:
                self.next_ms = decode_time(self._heap[0])
            else:
                self._refill()
        return keys

    def _shrink(self) -> None:
        """Leave the later timers to the store (and to what is on its way there)."""
        self._heap = nsmallest(self._chunk, self._heap)  # sorted, so it is a heap
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
