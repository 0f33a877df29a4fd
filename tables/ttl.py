"""A keyed table whose entries expire, in event time.

An entry expires when stream time reaches the event time of its last write plus the table's ttl.
From then on nobody finds it, and at the next use of the table it is removed, with a tombstone in
the changelog. Who is next is known from timers, so nothing is ever searched; a timer is a hint, set
at an entry's first write and again when it fires and the entry has been written since.

A write of an event that is older than the last one does not make an entry older, and one that is
older than the ttl already is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tables.codec import value_codec
from tables.store import TIMERS
from tables.table import Cut, KeyedPartition
from tables.timers import Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tables.codec import Codec
    from tables.store import Change, Store


class ExpiringPartition(KeyedPartition):
    """Keys to values, for one partition; what is kept is (time of the last write, value).

    Call :meth:`at` with an event's time before anything is read or written for it.

    Args:
        ttl_ms: for how long after its last write an entry is found.
    """

    __slots__ = ("_now", "_timers", "stream_time", "ttl_ms")

    def __init__(
        self, family: str, store: Store, *, ttl_ms: int, value_type: Any = None, **options: Any
    ) -> None:
        super().__init__(family, store, value=stamped_codec(value_type), **options)
        self.ttl_ms = ttl_ms
        self.stream_time = self._now = NO_TIME
        self._timers = Timers(family, store)

    def at(self, ts: int) -> None:
        """Go on with an event of this time (ms); remove what has expired."""
        self._now = ts
        self.stream_time = max(self.stream_time, ts)
        if self.stream_time >= self._timers.next_ms:
            self._expire()

    def _expire(self) -> None:
        due = [(self._key.decode(raw), raw) for raw in self._timers.due(self.stream_time)]
        self.load_many(key for key, _ in due)
        for key, raw_key in due:
            entry = super().get(key)
            if entry is not None and not self._lives(entry):
                super().delete(key)
            elif entry is not None:
                self._timers.set(entry[0] + self.ttl_ms, raw_key)

    def _lives(self, entry: tuple[int, Any]) -> bool:
        return entry[0] + self.ttl_ms > self.stream_time

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` if there is none, or no more."""
        entry = super().get(key)
        return default if entry is None or not self._lives(entry) else entry[1]

    def put(self, key: Any, value: Any) -> None:
        """Set ``key`` to ``value``, as of the event in hand; written with the next commit."""
        before = super().get(key)
        lived = before is not None and self._lives(before)
        time = max(self._now, before[0]) if lived else self._now
        if time + self.ttl_ms <= self.stream_time:
            return  # it comes too late to be found by anybody
        super().put(key, (time, value))
        if not lived:
            self._timers.set(time + self.ttl_ms, self._key.encode(key))

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield every entry that has not expired, in the order of the keys' bytes."""
        return ((key, entry[1]) for key, entry in super().items() if self._lives(entry))

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        cut = super().cut()
        return Cut(cut.changelog, {**cut.store, TIMERS: self._timers.cut()})

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._timers.committed()
        super().committed()


def restored(
    family: str, changes: list[Change], codec: Codec[tuple[int, Any]], ttl_ms: int
) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    timers = [(codec.decode(raw)[0] + ttl_ms, key) for key, raw in changes if raw is not None]
    return {family: changes, TIMERS: timer_rows(family, timers)}


def stamped_codec(value_type: Any) -> Codec[tuple[int, Any]]:
    """Return the codec of (event time of the last write, value)."""
    kind: Any = Any if value_type is None else value_type
    return value_codec(tuple.__class_getitem__((int, kind)))
