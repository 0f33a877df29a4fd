"""A join of two tables by their keys: inner, left or outer, as Kafka Streams 4.3.1 does it.

Each update of a side that has a key gives one row: the pair of both sides' values, or None (a
tombstone) where there is no such row any more. Its time is the later one of the update's and the
other side's. An update is silent while the other side is absent and a row of this side cannot stand
alone, or where nothing was there and nothing comes.

Plain inputs are applied as they arrive, whatever their times. With a history, an update counts only
if no newer one of its key was seen, as in a versioned table: so deletions are remembered until
what could be older than them is too late anyway (older than the side's newest time - history).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.codec import value_codec
from tables.operator import Result
from tables.store import TIMERS
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tables.codec import Codec
    from tables.store import Change, Store

How = Literal["inner", "left", "outer"]

STANDS_ALONE: dict[str, tuple[bool, bool]] = {
    "inner": (False, False),
    "left": (True, False),
    "outer": (True, True),
}
"""Whether a row of the left side, and one of the right, comes out without a partner."""

ROW = b"r"
CLOCK = b"c"
"""First bytes of keys in the store: a key's two sides; the newest time of each side."""


class Stored(msgspec.Struct, array_like=True, gc=False):
    """A key's two sides as they are stored: values as their topics have them, times in ms."""

    left: bytes | None
    left_ts: int
    right: bytes | None
    right_ts: int


STORED: Codec[Stored] = value_codec(Stored)
CLOCKS: Codec[list[int]] = value_codec(list[int])


class _Row:
    """The two sides of a key: (left, right). ``stored``: the store has it, or will."""

    __slots__ = ("stored", "times", "values")

    def __init__(self, values: list[Any], times: list[int], *, stored: bool) -> None:
        self.values = values
        self.times = times
        self.stored = stored

    def is_gone(self) -> bool:
        """Say whether nothing is left of it, no memory of a deletion either."""
        return self.values == [None, None] and self.times == [NO_TIME, NO_TIME]


class TableJoinPartition(Overlay):
    """One partition of a join; an :class:`tables.operator.OperatorPartition`.

    Args:
        family: the column family, which is the join's name.
        codecs: of the values of the left and the right side.
        history_ms: for how long an update that is not the newest is told from one that is; None:
            all count.
    """

    __slots__ = (
        "_alone", "_clocks", "_codecs", "_dirty", "_history_ms", "_moved", "_rows", "_timers",
        "stream_time",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        how: How,
        codecs: tuple[Codec[Any], Codec[Any]],
        history_ms: int | None = None,
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self._alone = STANDS_ALONE[how]
        self._codecs = codecs
        self._history_ms = history_ms
        self._rows: dict[bytes, _Row] = {}
        self._dirty: dict[bytes, None] = {}
        raw = None if history_ms is None else store.get(family, CLOCK)
        self._clocks = [NO_TIME, NO_TIME] if raw is None else CLOCKS.decode(raw)
        self._moved = False  # the clocks have, since the last cut
        self._timers = [Timers(owner, store) for owner in _timer_owners(family)]

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Apply one update of a side; return the row that comes of it, if one does."""
        if key is None:
            return ()
        if ts > self.stream_time:  # noqa: PLR1730  (once an event; max() costs twice as much)
            self.stream_time = ts
        row = self._rows.get(key)
        if row is None:
            row = self._load(key)
        if self._history_ms is not None and not self._is_newest(row, side, key, ts, value):
            return ()
        values, times = row.values, row.times
        before, other = values[side], values[1 - side]
        if value is not None or before is not None or self._history_ms is not None:
            values[side] = value
            times[side] = ts if value is not None or self._history_ms is not None else NO_TIME
            self._dirty[key] = None
        if other is None:
            if not self._alone[side] or (value is None and before is None):
                return ()
        elif times[1 - side] > ts:
            ts = times[1 - side]
        gone = value is None and (other is None or not self._alone[1 - side])
        return (Result(key, ts, None if gone else (values[0], values[1])),)

    def _is_newest(self, row: _Row, side: int, key: bytes, ts: int, value: Any) -> bool:
        """Say whether an update of a versioned side counts; move its clock, forget deletions."""
        assert self._history_ms is not None
        clock = self._clocks[side]
        if ts < clock - self._history_ms or ts < row.times[side]:
            return False
        if value is None:
            self._timers[side].set(ts + self._history_ms + 1, key)
        if ts > clock:
            self._clocks[side] = ts
            self._moved = True
            if ts >= self._timers[side].next_ms:
                self._forget(side, ts)
        return True

    def _forget(self, side: int, now: int) -> None:
        """Forget the deletions that nothing can come after any more."""
        assert self._history_ms is not None
        for key in self._timers[side].due(now):
            row = self._rows.get(key) or self._load(key)
            if row.values[side] is None and NO_TIME < row.times[side] < now - self._history_ms:
                row.times[side] = NO_TIME
                self._dirty[key] = None

    def _load(self, key: bytes) -> _Row:
        raw = self._store.get(self.family, ROW + key)
        row = self._rows[key] = self._decode(raw)
        return row

    def _decode(self, raw: bytes | None) -> _Row:
        if raw is None:
            return _Row([None, None], [NO_TIME, NO_TIME], stored=False)
        kept = STORED.decode(raw)
        left, right = self._codecs
        values = [
            None if kept.left is None else left.decode(kept.left),
            None if kept.right is None else right.decode(kept.right),
        ]
        return _Row(values, [kept.left_ts, kept.right_ts], stored=True)

    def _encode(self, row: _Row) -> bytes:
        (left, right), (left_ts, right_ts) = row.values, row.times
        encode_left, encode_right = (codec.encode for codec in self._codecs)
        return STORED.encode(
            Stored(
                None if left is None else encode_left(left), left_ts,
                None if right is None else encode_right(right), right_ts,
            )
        )  # fmt: skip

    def close_all(self) -> Sequence[Result]:
        """Return nothing: a join of tables waits for nothing."""
        return ()

    def items(self) -> list[Any]:
        """Return (raw key, (left value, right value)) of every key that has one of them."""
        end = bytes([ROW[0] + 1])
        rows = {
            raw_key[1:]: self._decode(raw)
            for raw_key, raw in self._store.scan(self.family, ROW, end)
        }
        rows |= self._rows
        return [
            (key, tuple(rows[key].values)) for key in sorted(rows)
            if rows[key].values != [None, None]
        ]  # fmt: skip

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        changes: list[Change] = []
        for key in self._dirty:
            row = self._rows[key]
            gone = row.is_gone()
            if row.stored or not gone:  # else it came and went between two commits
                changes.append((ROW + key, None if gone else self._encode(row)))
                row.stored = not gone
        self._dirty = {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        if self._moved:
            self._moved = False
            changes.append((CLOCK, CLOCKS.encode(self._clocks)))
        timers = [change for each in self._timers for change in each.cut()]
        return Cut(changes, {self.family: changes, TIMERS: timers})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return len(self._rows) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        for timers in self._timers:
            timers.committed()
        for key in self.surplus(self._rows, self._dirty):
            del self._rows[key]


def _timer_owners(family: str) -> tuple[str, str]:
    return f"{family}/left", f"{family}/right"  # no table's name has a slash


def restored(family: str, changes: list[Change], history_ms: int | None) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    if history_ms is None:
        return {family: changes}
    left: list[tuple[int, bytes]] = []
    right: list[tuple[int, bytes]] = []
    for raw_key, raw in changes:
        if raw is not None and raw_key[:1] == ROW:
            kept = STORED.decode(raw)
            if kept.left is None and kept.left_ts > NO_TIME:
                left.append((kept.left_ts + history_ms + 1, raw_key[1:]))
            if kept.right is None and kept.right_ts > NO_TIME:
                right.append((kept.right_ts + history_ms + 1, raw_key[1:]))
    owners = _timer_owners(family)
    return {family: changes, TIMERS: timer_rows(owners[0], left) + timer_rows(owners[1], right)}
