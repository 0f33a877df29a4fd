"""Tumbling and hopping windows, as Kafka Streams 4.x means them.

A window contains start <= ts < end. A record first moves stream time and is then judged by it: a
window whose end + grace has been reached is closed for it (per window, so a record can be late for
one hopping window and counted in another). Closed windows come out after the record's own update,
in the order of (start, key). Windows are aligned to the epoch and never start below 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.codec import TIME_BYTES, decode_time, encode_time, value_codec
from tables.table import Cut
from tables.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.codec import Codec
    from tables.store import Change, Store

Emission = Literal["final", "updates"]

NO_TIME = -(1 << 62)


class Windows(msgspec.Struct, frozen=True):
    """Which windows there are. All in ms; tumbling windows have ``advance_ms == size_ms``."""

    size_ms: int
    advance_ms: int
    grace_ms: int = 0

    def starts(self, ts: int) -> list[int]:
        """Return the starts of the windows that contain ``ts``, oldest first; none below 0."""
        if ts < 0:
            return []
        if self.advance_ms == self.size_ms:
            return [ts - ts % self.size_ms]
        first = max(0, ts - self.size_ms + self.advance_ms) // self.advance_ms * self.advance_ms
        return list(range(first, ts + 1, self.advance_ms))

    def closes(self, start: int) -> int:
        """Return the stream time at which the window that begins at ``start`` is closed."""
        return start + self.size_ms + self.grace_ms


class Aggregate(msgspec.Struct):
    """How a window's value comes about.

    Attributes:
        initial: makes an empty value.
        reduce: takes the value and one more event, returns the value (it may change it in place).
        merge: makes one value of two (sessions only).
        value_type: the value's type, for its codec; None for plain Python values.
    """

    initial: Callable[[], Any]
    reduce: Callable[[Any, Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    value_type: Any = None


class _Cell(msgspec.Struct, array_like=True, gc=False):
    """One key's value in one window, and the largest event timestamp in it."""

    timestamp: int
    value: Any


class WindowPartition:
    """Windowed values of one partition: (window start, key) -> value.

    Entries lie in the store by start first, so closing a window is one range. A window that came
    up while the partition was open and lost no entry to eviction is *complete* in the overlay: a
    key that is not there does not exist, and nothing is read from the store.
    """

    __slots__ = (
        "_aggregate", "_cell", "_complete", "_dirty", "_emission", "_emit", "_flying", "_key",
        "_open", "_store", "cache_entries", "family", "late", "next_close_ms", "stream_time",
        "windows",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        windows: Windows,
        key: Codec[Any],
        aggregate: Aggregate,
        emission: Emission | None = None,
        emit: Callable[[Any, int, int, Any, int], None] | None = None,
        cache_entries: int = 200_000,
    ) -> None:
        self.family = family
        self.windows = windows
        self.cache_entries = cache_entries
        self.stream_time = NO_TIME
        self.late = 0
        self._store = store
        self._key = key
        self._aggregate = aggregate
        self._emission = emission if emit is not None else None
        self._emit = emit
        self._cell = _cell_codec(aggregate.value_type)
        self._open: dict[int, dict[Any, _Cell]] = {}
        self._complete: dict[int, bool] = {}  # by start; False: the store may know more keys
        self._dirty: dict[tuple[int, Any], _Cell | None] = {}
        self._flying: dict[tuple[int, Any], _Cell | None] = {}
        self.next_close_ms = NEVER
        self._find_stored()

    def _find_stored(self) -> None:
        """Learn which windows the store holds, by leaping from start to start."""
        seek = b""
        while rows := self._store.scan(self.family, seek, None, 1):
            start = decode_time(rows[0][0])
            self._open[start] = {}
            self._complete[start] = False
            seek = encode_time(start + 1)
        self._plan_close()

    def _plan_close(self) -> None:
        self.next_close_ms = self.windows.closes(min(self._open)) if self._open else NEVER

    def update(self, key: Any, ts: int, event: Any) -> None:
        """Add ``event`` to the windows that contain ``ts``; then close what is due."""
        reduce = self._aggregate.reduce
        assert reduce is not None, f"table {self.family} has no reduce function"
        for start in self._on_time(ts):
            cell = self._find(start, key)
            if cell is None:
                cell = self._create(start, key, ts)
            cell.value = reduce(cell.value, event)
            self._changed(start, key, cell, ts)
        if self.stream_time >= self.next_close_ms:
            self._close_due()

    def get(self, key: Any, ts: int) -> Any:
        """Return the value of the latest window that contains ``ts``, or None."""
        starts = self.windows.starts(ts)
        cell = self._find(starts[-1], key) if starts else None
        return None if cell is None else cell.value

    def apply(self, key: Any, ts: int, change: Callable[[Any], Any]) -> None:
        """Replace the value by ``change(value)`` in each window of ``ts`` that is still open."""
        for start in self._on_time(ts):
            cell = self._find(start, key) or self._create(start, key, ts)
            cell.value = change(cell.value)
            self._changed(start, key, cell, ts)
        if self.stream_time >= self.next_close_ms:
            self._close_due()

    def _on_time(self, ts: int) -> list[int]:
        """Move stream time to ``ts`` and return the starts of its windows that are not closed."""
        if ts > self.stream_time:  # noqa: PLR1730  (once an event; max() costs twice as much)
            self.stream_time = ts
        starts = self.windows.starts(ts)
        if not starts or self.windows.closes(starts[0]) <= self.stream_time:
            kept = [start for start in starts if self.windows.closes(start) > self.stream_time]
            self.late += not kept
            return kept
        return starts

    def _find(self, start: int, key: Any) -> _Cell | None:
        window = self._open.get(start)
        if window is None:
            return None
        cell = window.get(key)
        if cell is None and not self._complete[start]:
            raw = self._store.get(self.family, encode_time(start) + self._key.encode(key))
            if raw is not None:
                cell = window[key] = self._cell.decode(raw)
        return cell

    def _create(self, start: int, key: Any, ts: int) -> _Cell:
        window = self._open.get(start)
        if window is None:
            window = self._open[start] = {}
            self._complete[start] = True
            self.next_close_ms = min(self.next_close_ms, self.windows.closes(start))
        cell = window[key] = _Cell(ts, self._aggregate.initial())
        return cell

    def _changed(self, start: int, key: Any, cell: _Cell, ts: int) -> None:
        if ts > cell.timestamp:  # noqa: PLR1730
            cell.timestamp = ts
        self._dirty[start, key] = cell
        if self._emission == "updates":
            assert self._emit is not None
            end = start + self.windows.size_ms
            self._emit(key, start, end, cell.value, cell.timestamp)

    def _close_due(self) -> None:
        for start in sorted(self._open):
            if self.windows.closes(start) > self.stream_time:
                break
            self._close(start)
        self._plan_close()

    def _close(self, start: int) -> None:
        """Emit (when final) and delete every entry of one window, in the order of its keys."""
        cells = self._entries(start)
        end = start + self.windows.size_ms
        emit = self._emit if self._emission == "final" else None
        for _, key, cell in cells:
            if emit is not None:
                emit(key, start, end, cell.value, cell.timestamp)
            self._dirty[start, key] = None
        del self._open[start]
        del self._complete[start]

    def _entries(self, start: int) -> list[tuple[bytes, Any, _Cell]]:
        """Return all entries of a window, sorted by the bytes of the key."""
        encode, decode = self._key.encode, self._key.decode
        rows = {encode(key): (key, cell) for key, cell in self._open[start].items()}
        if not self._complete[start]:
            for stored, raw in self._store.scan(
                self.family, encode_time(start), encode_time(start + 1)
            ):
                raw_key = stored[TIME_BYTES:]
                if raw_key not in rows:
                    rows[raw_key] = (decode(raw_key), self._cell.decode(raw))
        return [(raw_key, *rows[raw_key]) for raw_key in sorted(rows)]

    def close_all(self) -> None:
        """Close every window now: the input has ended."""
        for start in sorted(self._open):
            self._close(start)
        self._plan_close()

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end and value of every open window, by (start, key)."""
        size = self.windows.size_ms
        return [
            (key, start, start + size, cell.value)
            for start in sorted(self._open)
            for _, key, cell in self._entries(start)
        ]

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode_key, encode_cell = self._key.encode, self._cell.encode
        changes: list[Change] = [
            (encode_time(start) + encode_key(key), None if cell is None else encode_cell(cell))
            for (start, key), cell in self._dirty.items()
        ]
        self._flying, self._dirty = self._dirty, {}
        return Cut(changes, {self.family: changes})

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._flying = {}
        excess = sum(map(len, self._open.values())) - self.cache_entries
        for start in sorted(self._open):
            if excess <= 0:
                break
            window = self._open[start]
            clean = [key for key in window if (start, key) not in self._dirty]
            for key in clean:
                del window[key]
            if clean:
                self._complete[start] = False
            excess -= len(clean)

    def restore(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what the store must hold for these changelog records."""
        for key, value in changes:
            start = decode_time(key)
            if value is not None and start not in self._open:
                self._open[start] = {}
                self._complete[start] = False
        self._plan_close()
        return {self.family: changes}


def _cell_codec(value_type: Any) -> Codec[_Cell]:
    if value_type is None:
        return value_codec(_Cell)
    typed = msgspec.defstruct(
        "Cell", [("timestamp", int), ("value", value_type)], bases=(_Cell,), array_like=True
    )
    return value_codec(typed)
