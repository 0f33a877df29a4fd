"""Sliding windows, as Kafka Streams 4.x means them.

A window is ``size`` long and holds both of its ends. Each event has a window that ends with it (its
*left* window) and one that begins 1 ms after it (its *right* window), and there are no others; a
right window exists once there is an event in it. Events before ``size`` share the window [0, size].
A window is closed once stream time > end + grace, and an event is late when even the last window
that could hold it, [ts, ts + size], is.

Kafka Streams forgets an event whose own left window has closed as soon as it has been added to the
windows that exist then, so windows that come about later undercount. Here a closed window is kept,
unseen, for as long as it takes to make later ones from it, and every window counts what is in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Any

import msgspec

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.store import TIMERS
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import NEVER, Timers, timer_rows
from tables.window import NO_TIME, stamped_codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.codec import Codec
    from tables.store import Change, Store
    from tables.window import Aggregate, Emission

_LENGTH_BYTES = 4
_DROP_SHARE = 8
"""A key's useless windows are dropped once they are more than one in so many of all it has."""
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
"""Values of these types cannot be changed in place: two windows may share one."""


class Sliding(msgspec.Struct, frozen=True):
    """How long a window is, and how long it waits for stragglers. In ms; both ends belong to it."""

    size_ms: int
    grace_ms: int = 0

    def closes(self, start: int) -> int:
        """Return the stream time at which the window that begins at ``start`` is closed."""
        return start + self.size_ms + self.grace_ms + 1

    def expires(self, start: int) -> int:
        """Return the stream time from which nothing that is still open can be made from it.

        An event that is just not late reaches back by ``size``, and the right window of the event
        before that one begins 1 ms later.
        """
        return self.closes(start) + self.size_ms + 1


class _Cell(msgspec.Struct, gc=False):
    """One window of a key.

    Attributes:
        timestamp: the largest event timestamp in it.
        open: it has not been closed, so its changes and its end are to be shown.
        dirty: it has changed since the last cut.
        stored: the store has it, or will have it with the cut that is on its way.
    """

    start: int
    timestamp: int
    value: Any
    open: bool = True
    dirty: bool = True
    stored: bool = False


class _Live:
    """The windows of one key, by start.

    Attributes:
        closed: the first so many, at least, are closed.
        timer: a timer is set for this time; later ones need none.
    """

    __slots__ = ("cells", "closed", "prefix", "raw_key", "starts", "timer")

    def __init__(self, raw_key: bytes) -> None:
        self.raw_key = raw_key
        self.prefix = len(raw_key).to_bytes(_LENGTH_BYTES, "big") + raw_key
        self.starts: list[int] = []
        self.cells: list[_Cell] = []
        self.closed = 0
        self.timer = NEVER


class SlidingPartition(Overlay):
    """Sliding windows of one partition: (key, window start) -> value.

    Entries lie in the store by key, then start: an event needs those of its key around its time.
    While the store was empty at the start and nothing was evicted, the overlay is *complete* and
    nothing is read from the store.
    """

    __slots__ = (
        "_complete", "_count", "_dirty", "_emission", "_emit", "_gone", "_initial", "_key",
        "_live", "_on_late", "_reduce", "_size", "_timers", "_touched", "_vacant", "_value",
        "late", "stream_time", "windows",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        windows: Sliding,
        key: Codec[Any],
        aggregate: Aggregate,
        emission: Emission | None = None,
        emit: Callable[[Any, int, int, Any, int], None] | None = None,
        on_late: Callable[[], None] | None = None,
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.windows = windows
        self.stream_time = NO_TIME
        self.late = 0
        self._size = windows.size_ms
        self._key = key
        self._initial = aggregate.initial
        self._reduce = aggregate.reduce
        self._emission = emission if emit is not None else None
        self._emit = emit
        self._on_late = on_late
        self._value = stamped_codec(aggregate.value_type)
        self._live: dict[Any, _Live] = {}
        self._count = 0  # windows in the overlay
        self._dirty: list[tuple[bytes, _Cell]] = []
        self._gone: list[Change] = []  # the tombstones of entries that the store has
        self._touched: dict[Any, None] = {}  # keys that are not, or not only, in the store
        self._vacant: dict[Any, None] = {}  # keys that have no windows, or may have none
        self._complete = not store.scan(family, limit=1)
        self._timers = Timers(family, store)

    # -- events ------------------------------------------------------------------------------

    def update(self, key: Any, ts: int, event: Any) -> None:
        """Reduce ``event`` into its windows; then close what is due. A null event is dropped."""
        if event is not None:
            assert self._reduce is not None, f"table {self.family} has no reduce function"
            self.fold(key, ts, self._reduce, event)

    def fold(self, key: Any, ts: int, change: Callable[[Any, Any], Any], other: Any) -> None:
        """Set the value to ``change(value, other)`` in each window that holds an event at ``ts``.

        Then close the windows that stream time has overtaken.
        """
        before = self.stream_time
        closed = before - self.windows.grace_ms  # windows that end below it are
        if ts < 0 or ts + self._size < closed:
            self.late += 1
            if self._on_late is not None:
                self._on_late()
        else:
            live = self._live.get(key)
            if live is None:
                live = self._load(key)
            self._touched[key] = None
            self._add(key, live, ts, closed, change, other)
        self.stream_time = max(before, ts)
        if self.stream_time >= self._timers.next_ms:
            self._close_due(before)

    def _add(
        self, key: Any, live: _Live, ts: int, closed: int,
        change: Callable[[Any, Any], Any], other: Any,
    ) -> None:  # fmt: skip
        """Add an event: to the windows that hold its time, and to those that come about with it."""
        starts, cells = live.starts, live.cells
        low, high = self._around(starts, ts)
        made = self._made(live, ts, low, high, change, other)
        shows = self._emit if self._emission == "updates" else None
        for cell in cells[low:high]:
            cell.value = change(cell.value, other)
            if ts > cell.timestamp:  # noqa: PLR1730
                cell.timestamp = ts
            if not cell.dirty:
                cell.dirty = True
                self._dirty.append((live.prefix, cell))
            if shows is not None and cell.open:
                end = cell.start + self._size
                shows(key, cell.start, end, cell.value, cell.timestamp)
        for cell in made:
            start, end = cell.start, cell.start + self._size
            cells.insert(bisect_left(starts, start), cell)
            insort(starts, start)
            self._dirty.append((live.prefix, cell))
            cell.open = end >= closed
            if shows is not None and cell.open:
                shows(key, start, end, cell.value, cell.timestamp)
            wakes = self.windows.closes if cell.open else self.windows.expires
            self._wake(live, wakes(start))
        self._count += len(made)

    def _around(self, starts: list[int], ts: int) -> tuple[int, int]:
        """Return where the windows that hold ``ts`` are; the window that ends with it comes first.

        An event below ``size`` has [0, size] in its place.
        """
        low = bisect_left(starts, max(0, ts - self._size))
        return low, bisect_right(starts, ts, low)

    def _made(
        self, live: _Live, ts: int, low: int, high: int,
        change: Callable[[Any, Any], Any], other: Any,
    ) -> list[_Cell]:  # fmt: skip
        """Return the windows that come about with an event at ``ts``.

        What later events there are within its right window, and earlier ones within its left one,
        is in the windows around it, before the event is added to those.
        """
        starts, cells, size = live.starts, live.cells, self._size
        left = max(0, ts - size)
        has_left = low < high and starts[low] == left
        previous = NO_TIME  # the event before it, if there is one near
        if has_left and cells[low].timestamp < ts:
            previous = cells[low].timestamp
        elif low:
            previous = cells[low - 1].timestamp
        made = []
        after = previous + 1
        if after > left and not _has(starts, bisect_left(starts, after), after):
            made.append(_Cell(after, ts, change(self._initial(), other)))
        if not has_left:
            found = low > 0 and previous >= left
            value = self._copy(cells[low - 1].value) if found else self._initial()
            made.append(_Cell(left, ts, change(value, other)))
        if high > low and not _has(starts, high, ts + 1):
            last = cells[high - 1]
            if last.timestamp > ts and last.start > ts - size:
                made.append(_Cell(ts + 1, last.timestamp, self._copy(last.value)))
        return made

    def _copy(self, value: Any) -> Any:
        """Return the value for one more window: ``change`` may change it in place."""
        if type(value) in _PLAIN:
            return value
        return self._value.decode(self._value.encode((0, value)))[1]

    def _load(self, key: Any, now: int | None = None) -> _Live:
        """Bring a key's windows from the store; ``now`` says which of them are closed already."""
        live = self._live[key] = _Live(self._key.encode(key))
        if self._complete:
            return live
        closed = (self.stream_time if now is None else now) - self.windows.grace_ms
        skip = len(live.prefix)
        end = live.prefix + b"\xff" * (TIME_BYTES + 1)
        for stored, raw in self._store.scan(self.family, live.prefix, end):
            start = decode_time(stored[skip:])
            timestamp, value = self._value.decode(raw)
            live.starts.append(start)
            live.cells.append(_Cell(start, timestamp, value, dirty=False, stored=True))
            live.cells[-1].open = start + self._size >= closed
        self._count += len(live.cells)
        return live

    # -- time --------------------------------------------------------------------------------

    def _wake(self, live: _Live, at_ms: int) -> None:
        """Look at a key again at that time, unless that is done before anyway."""
        if at_ms < live.timer:
            live.timer = at_ms
            self._timers.set(at_ms, live.raw_key)

    @property
    def next_close_ms(self) -> int:
        """The stream time at which a window may close, at the earliest."""
        return self._timers.next_ms

    def advance(self, time_ms: int) -> None:
        """Move stream time on without an event, and close what is due."""
        before = self.stream_time
        self.stream_time = max(before, time_ms)
        if self.stream_time >= self._timers.next_ms:
            self._close_due(before)

    def _close_due(self, before: int) -> None:
        """Close the windows that are due since ``before``, by (start, key); drop the useless."""
        now = self.stream_time
        rows: list[tuple[int, bytes, Any, _Cell]] = []
        while self._timers.next_ms <= now:
            for raw_key in self._timers.due(now):
                key = self._key.decode(raw_key)
                live = self._live.get(key)
                if live is None:
                    live = self._load(key, before)
                rows += self._close(key, live, now)
        self._show(rows)

    def _close(self, key: Any, live: _Live, now: int) -> list[tuple[int, bytes, Any, _Cell]]:
        """Close a key's windows that are due; return them with the key."""
        windows, cells = self.windows, live.cells
        closed = bisect_left(live.starts, now - windows.grace_ms - self._size)
        rows = []
        for cell in cells[live.closed : closed]:
            if cell.open:
                cell.open = False
                rows.append((cell.start, live.raw_key, key, cell))
        live.closed = max(live.closed, closed)
        expired = bisect_left(live.starts, now - windows.expires(0) + 1)
        if expired * _DROP_SHARE > len(cells):  # all that stay behind them must be moved up
            self._drop(key, live, expired)
        live.timer = NEVER
        if live.closed < len(cells):
            self._wake(live, windows.closes(cells[live.closed].start))
        elif cells:
            self._wake(live, windows.expires(cells[-1].start))
        return rows

    def _drop(self, key: Any, live: _Live, count: int) -> None:
        """Forget a key's first windows."""
        for cell in live.cells[:count]:
            cell.dirty = False
            if cell.stored:
                self._gone.append((live.prefix + encode_time(cell.start), None))
        del live.starts[:count], live.cells[:count]
        live.closed = max(0, live.closed - count)
        self._count -= count
        self._touched[key] = None
        if not live.cells:
            self._vacant[key] = None

    def _show(self, rows: list[tuple[int, bytes, Any, _Cell]]) -> None:
        """Emit closed windows, where they are to be seen."""
        if rows and self._emission == "final":
            assert self._emit is not None
            rows.sort(key=lambda row: row[:2])
            for start, _, key, cell in rows:
                self._emit(key, start, start + self._size, cell.value, cell.timestamp)

    def close_all(self) -> None:
        """Close every window now, and forget them all: the input has ended."""
        rows: list[tuple[int, bytes, Any, _Cell]] = []
        for key, live in self._everything():
            rows += ((cell.start, live.raw_key, key, cell) for cell in live.cells if cell.open)
            self._drop(key, live, len(live.cells))
        self._show(rows)
        self._timers.due(NEVER - 1)
        for live in self._live.values():
            live.timer = NEVER

    # -- reading -----------------------------------------------------------------------------

    def get(self, key: Any, ts: int) -> Any:
        """Return the value of the window that ends at ``ts`` ([0, size] below that), or None."""
        live = self._live.get(key)
        if live is None:
            live = self._load(key)
            self._vacant[key] = None  # it may be
        low, high = self._around(live.starts, ts)
        left = max(0, ts - self._size)
        if low < high and live.starts[low] == left:
            return live.cells[low].value
        before = live.cells[low - 1] if low else None
        return before.value if before is not None and before.timestamp >= left else None

    def value(self, key: Any, ts: int) -> Any:
        """Return what :meth:`get` does, or an empty value that is kept nowhere."""
        value = self.get(key, ts)
        return self._initial() if value is None else value

    def _everything(self) -> list[tuple[Any, _Live]]:
        """Return all keys with their windows; those of the store come into the overlay."""
        for stored, _ in self._store.scan(self.family):
            key = self._key.decode(stored[_LENGTH_BYTES:-TIME_BYTES])
            if key not in self._live:
                self._load(key)
        return list(self._live.items())

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end and value of every open window, by (start, key)."""
        rows = [
            (cell.start, live.raw_key, key, cell.value)
            for key, live in self._everything()
            for cell in live.cells
            if cell.open
        ]
        rows.sort(key=lambda row: row[:2])
        return [(key, start, start + self._size, value) for start, _, key, value in rows]

    # -- commits -----------------------------------------------------------------------------

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode = self._value.encode
        changes = self._gone
        for prefix, cell in self._dirty:
            if cell.dirty:  # else it is gone
                cell.dirty = False
                cell.stored = True
                stamped = encode((cell.timestamp, cell.value))
                changes.append((prefix + encode_time(cell.start), stamped))
        self._dirty, self._gone, self._touched = [], [], {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut(changes, {self.family: changes, TIMERS: self._timers.cut()})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return self._count * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._timers.committed()
        vacant, self._vacant = self._vacant, {}
        for key in vacant:
            if key in self._touched:
                self._vacant[key] = None
            elif key in self._live and not self._live[key].cells:
                del self._live[key]
        most = self.room()
        if self._count <= most:
            return
        self._complete = False
        for key in [key for key in self._live if key not in self._touched]:
            self._count -= len(self._live.pop(key).cells)
            if self._count <= most:
                break


def _has(starts: list[int], at: int, start: int) -> bool:
    return at < len(starts) and starts[at] == start


def restored(family: str, changes: list[Change], windows: Sliding) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    timers = [
        (windows.closes(decode_time(key[-TIME_BYTES:])), key[_LENGTH_BYTES:-TIME_BYTES])
        for key, value in changes
        if value is not None
    ]
    return {family: changes, TIMERS: timer_rows(family, timers)}
