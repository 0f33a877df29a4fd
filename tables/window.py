"""Tumbling and hopping windows, as Kafka Streams 4.x means them.

A window contains start <= ts < end. It is closed once stream time has reached its end + grace, and
a record that comes then is late for it (per window, so a record can be late for one hopping window
and counted in another). Closed windows come out after the update of the record that moved stream
time, in the order of (start, key). Windows are aligned to the epoch and never start below 0.

Kafka Streams moves stream time first and judges the record after that, Flink the other way round.
That makes no difference, since a window lasts until after all that it contains, but with a
watermark that lags by nothing: there, the last record of a window closes it and is still in it.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.codec import TIME_BYTES, decode_time, encode_time, value_codec
from tables.store import Below
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.codec import Codec
    from tables.store import Change, Entry, Store

Emission = Literal["final", "updates"]

NO_TIME = -(1 << 62)
_RAW_KEY = itemgetter(0)


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


class _Cell(msgspec.Struct, gc=False):
    """One key's value in one window.

    Attributes:
        timestamp: the largest event timestamp in it.
        dirty: it has changed since the last cut.
        stored: the store has it, or will have it with the cut that is on its way.
    """

    timestamp: int
    value: Any
    dirty: bool
    stored: bool


class _Window(dict[Any, _Cell]):
    """The cells of one window that are in the overlay.

    ``complete``: there are no others; a key that is not here does not exist.
    """

    __slots__ = ("complete",)

    def __init__(self, *, complete: bool) -> None:
        super().__init__()
        self.complete = complete


class WindowPartition(Overlay):
    """Windowed values of one partition: (window start, key) -> value.

    Entries lie in the store by start first, so closing a window is one range. A window that came
    up while the partition was open and lost no entry to eviction is *complete* in the overlay:
    nothing of it is looked up in the store. One that opens and closes between two commits leaves
    no trace in store and changelog at all.
    """

    __slots__ = (
        "_aggregate", "_cells", "_dirty", "_early_at", "_emission", "_emit", "_emptied", "_every",
        "_gone", "_initial", "_kept", "_key", "_on_late", "_open", "_retention", "_span",
        "_starts", "_tumbling", "_value", "late", "next_close_ms", "stream_time", "windows",
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
        on_late: Callable[[], None] | None = None,
        every_ms: int = 0,
        retention_ms: int = 0,
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.windows = windows
        self.stream_time = NO_TIME
        self.late = 0
        self._span = windows.size_ms + windows.grace_ms  # from a window's start to its close
        self._tumbling = windows.size_ms if windows.advance_ms == windows.size_ms else 0
        self._key = key
        self._aggregate = aggregate
        self._initial = aggregate.initial
        self._emission = emission if emit is not None else None
        self._emit = emit
        self._on_late = on_late
        self._every = every_ms if self._emission == "final" else 0
        self._early_at = NO_TIME if self._every else NEVER
        self._value = stamped_codec(aggregate.value_type)
        self._open: dict[int, _Window] = {}
        self._starts: list[int] = []  # of what is open, as a heap
        self._retention = retention_ms
        self._kept: deque[int] = deque()  # the starts of windows that are closed, for reading only
        self._cells = 0  # in all open windows
        self._dirty: list[tuple[int, Any, _Cell]] = []
        self._gone: list[Change] = []  # the tombstones of entries that the store has
        self._emptied: list[Entry] = []  # the same for the store: one for each window
        self.next_close_ms = NEVER
        self._find_stored()

    def _find_stored(self) -> None:
        """Learn which windows the store holds, by leaping from start to start."""
        seek = b""
        while rows := self._store.scan(self.family, seek, None, 1):
            start = decode_time(rows[0][0])
            self._open[start] = _Window(complete=False)
            self._starts.append(start)  # they come sorted, so it is a heap
            seek = encode_time(start + 1)
        self._plan_close()

    def _plan_close(self) -> None:
        soonest = self._starts[0] + self._span if self._starts else NEVER
        self.next_close_ms = min(soonest, self._early_at) if self._starts else NEVER

    def update(self, key: Any, ts: int, event: Any) -> None:
        """Reduce ``event`` into the windows that contain ``ts``; then close what is due."""
        reduce = self._aggregate.reduce
        assert reduce is not None, f"table {self.family} has no reduce function"
        self.fold(key, ts, reduce, event)

    def value(self, key: Any, ts: int) -> Any:
        """Return what :meth:`get` does, or an empty value that is kept nowhere."""
        value = self.get(key, ts)
        return self._aggregate.initial() if value is None else value

    def fold(self, key: Any, ts: int, change: Callable[[Any, Any], Any], other: Any) -> None:
        """Set the value to ``change(value, other)`` in each window of ``ts`` that is still open.

        Then close the windows that stream time has overtaken.
        """
        size = self._tumbling
        before = self.stream_time
        if size and ts >= 0:
            start = ts - ts % size
            if start + self._span > before:
                self._fold_one(start, key, ts, change, other)
            else:
                self._is_late()
        else:
            starts = self.windows.starts(ts)
            open_starts = [start for start in starts if start + self._span > before]
            if not open_starts:
                self._is_late()
            for start in open_starts:
                self._fold_one(start, key, ts, change, other)
        if ts > before:
            self.stream_time = ts
        if self.stream_time >= self.next_close_ms:
            self._close_due(before)

    def _is_late(self) -> None:
        self.late += 1
        if self._on_late is not None:
            self._on_late()

    def advance(self, time_ms: int) -> None:
        """Move stream time on without an event, and close what is due."""
        before = self.stream_time
        self.stream_time = max(before, time_ms)
        if self.stream_time >= self.next_close_ms:
            self._close_due(before)

    def _fold_one(
        self, start: int, key: Any, ts: int, change: Callable[[Any, Any], Any], other: Any
    ) -> None:
        window = self._open.get(start)
        if window is None:
            window = self._open_window(start)
        cell = window.get(key)
        if cell is None and not window.complete:
            cell = self._stored(window, start, key)
        if cell is None:
            cell = window[key] = _Cell(ts, change(self._initial(), other), True, False)  # noqa: FBT003
            self._cells += 1
            self._dirty.append((start, key, cell))
        else:
            cell.value = change(cell.value, other)
            if ts > cell.timestamp:  # noqa: PLR1730
                cell.timestamp = ts
            if not cell.dirty:
                cell.dirty = True
                self._dirty.append((start, key, cell))
        if self._emission == "updates":
            assert self._emit is not None
            self._emit(key, start, start + self.windows.size_ms, cell.value, cell.timestamp)

    def get(self, key: Any, ts: int) -> Any:
        """Return the value of the latest window that contains ``ts``, or None.

        A window that has closed is there for as long as ``retention_ms`` says.
        """
        starts = self.windows.starts(ts)
        cell = self._find(starts[-1], key) if starts else None
        return None if cell is None else cell.value

    def _find(self, start: int, key: Any) -> _Cell | None:
        window = self._open.get(start)
        if window is None or start + self._span + self._retention <= self.stream_time:
            return None
        cell = window.get(key)
        return cell if cell is not None or window.complete else self._stored(window, start, key)

    def _stored(self, window: _Window, start: int, key: Any) -> _Cell | None:
        """Bring a key of a window from the store into the overlay, if it is there."""
        raw = self._store.get(self.family, encode_time(start) + self._key.encode(key))
        if raw is None:
            return None
        cell = window[key] = self._load(raw)
        self._cells += 1
        return cell

    def _load(self, raw: bytes) -> _Cell:
        timestamp, value = self._value.decode(raw)
        return _Cell(timestamp, value, False, True)  # noqa: FBT003

    def _open_window(self, start: int) -> _Window:
        window = self._open[start] = _Window(complete=True)
        heappush(self._starts, start)
        self.next_close_ms = min(self.next_close_ms, start + self._span, self._early_at)
        return window

    def _close_due(self, before: int) -> None:
        """Do what has come due since stream time was ``before``."""
        now, starts = self.stream_time, self._starts
        while starts and starts[0] + self._span <= now:
            start = heappop(starts)
            if not self._retention:
                self._close(start)
                continue
            if start + self._span > before:  # else it had closed before a restart
                self._show(start)
            self._kept.append(start)
        self._drop_kept(now - self._span - self._retention)
        if now >= self._early_at:
            if before != NO_TIME and before // self._every < now // self._every:
                self._show_all()
            self._early_at = (now // self._every + 1) * self._every
        self._plan_close()

    def _show_all(self) -> None:
        """Emit what the open windows hold by now."""
        for start in sorted(self._starts):
            self._show(start)

    def _show(self, start: int) -> None:
        """Emit what a window holds, where it is to be seen, in the order of its keys."""
        if self._emission == "final":
            assert self._emit is not None
            end = start + self.windows.size_ms
            for _, key, cell in self._entries(start):
                self._emit(key, start, end, cell.value, cell.timestamp)

    def _drop_kept(self, latest: int) -> None:
        """Delete the windows that were kept and begin at ``latest`` or before."""
        while self._kept and self._kept[0] <= latest:
            self._close(self._kept.popleft(), show=False)

    def _close(self, start: int, *, show: bool = True) -> None:
        """Emit (when final) and delete every entry of one window, in the order of its keys."""
        end = start + self.windows.size_ms
        emit = self._emit if show and self._emission == "final" else None
        prefix = encode_time(start)
        gone = self._gone
        stored = len(gone)
        for raw_key, key, cell in self._entries(start):
            if emit is not None:
                emit(key, start, end, cell.value, cell.timestamp)
            cell.dirty = False
            if cell.stored:
                gone.append((prefix + raw_key, None))
        if len(gone) > stored:
            self._emptied.append((prefix, Below(encode_time(start + 1))))
        self._cells -= len(self._open.pop(start))

    def _entries(self, start: int) -> list[tuple[bytes, Any, _Cell]]:
        """Return all entries of a window, sorted by the bytes of the key."""
        encode, decode = self._key.encode, self._key.decode
        window = self._open[start]
        held = zip(map(encode, window), window, window.values(), strict=True)
        if window.complete:
            return sorted(held, key=_RAW_KEY)
        found = {raw_key: (raw_key, key, cell) for raw_key, key, cell in held}
        for stored, raw in self._store.scan(
            self.family, encode_time(start), encode_time(start + 1)
        ):
            raw_key = stored[TIME_BYTES:]
            if raw_key not in found:
                found[raw_key] = (raw_key, decode(raw_key), self._load(raw))
        return sorted(found.values(), key=_RAW_KEY)

    def close_all(self) -> None:
        """Close every window now: the input has ended."""
        self._drop_kept(NEVER)
        while self._starts:
            start = heappop(self._starts)
            self._close(start, show=start + self._span > self.stream_time)
        self._plan_close()

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end and value of every open window, by (start, key)."""
        size = self.windows.size_ms
        return [
            (key, start, start + size, cell.value)
            for start in sorted(self._starts)
            if start + self._span > self.stream_time  # those that were kept come back as open ones
            for _, key, cell in self._entries(start)
        ]

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode_key, encode = self._key.encode, self._value.encode
        changes: list[Change] = []
        prefixes: dict[int, bytes] = {}
        for start, key, cell in self._dirty:
            if cell.dirty:  # else its window has closed
                cell.dirty = False
                cell.stored = True
                stamped = encode((cell.timestamp, cell.value))
                prefix = prefixes.get(start) or prefixes.setdefault(start, encode_time(start))
                changes.append((prefix + encode_key(key), stamped))
        gone, emptied = self._gone, self._emptied
        self._dirty, self._gone, self._emptied = [], [], []
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut([*gone, *changes], {self.family: [*emptied, *changes]})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return self._cells * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        excess = self._cells - self.room()
        for start in sorted(self._open) if excess > 0 else ():
            if excess <= 0:
                break
            window = self._open[start]
            clean = [key for key, cell in window.items() if not cell.dirty]
            for key in clean:
                del window[key]
            if clean:
                window.complete = False
            excess -= len(clean)
            self._cells -= len(clean)


def stamped_codec(value_type: Any) -> Codec[tuple[int, Any]]:
    """Return the codec of (largest event timestamp, value)."""
    kind: Any = Any if value_type is None else value_type
    return value_codec(tuple.__class_getitem__((int, kind)))
