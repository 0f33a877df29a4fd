"""A stream joined with a versioned table, after a while of waiting for the table's late updates.

As Kafka Streams' stream-table join with grace: a record waits until stream time >= its time +
grace, and is then joined with what the table says of its key *at the record's time*. Stream time is
that of the waiting records alone: neither updates of the table nor records that do not wait move
it. One that is older than that already (its time < stream time - grace) is not dropped but joined
at once. Records come out by (time, key, arrival).

Each waiting record is one entry of the store, and has a timer, whose order is the order in which
they come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.operator import Result
from tables.store import TIMERS
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import NEVER, Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tables.codec import Codec
    from tables.store import Change, Store
    from tables.versioned import VersionedPartition

_CLOCK = b"\xff"
"""The key of the entry that says how many records have come; those of records lie before it."""


class AsOfPartition(Overlay):
    """One partition of an as-of join; an operator's (:mod:`tables.operator`).

    Args:
        family: the column family.
        store: where committed records are.
        table: the versioned table's name.
        key: codec of the table's keys.
        value: codec of the records' values.
        grace_ms: how long a record waits.
        left: a record without a row comes out, too, with None.
        cache_entries: records kept in memory after a commit; new ones always are.
    """

    __slots__ = (
        "_clock", "_dirty", "_grace", "_key", "_left", "_number", "_table", "_table_name",
        "_timers", "_value", "_waiting", "stream_time",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        table: str,
        key: Codec[Any],
        value: Codec[Any],
        grace_ms: int,
        left: bool,
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self._table_name = table
        self._table: VersionedPartition | None = None
        self._key = key
        self._value = value
        self._grace = grace_ms
        self._left = left
        self._waiting: dict[bytes, Any] = {}  # those that are in memory, by address
        self._dirty: dict[bytes, bool] = {}  # uncommitted: True is waiting, False has come out
        self._timers = Timers(family, store)
        self._clock = store.get(family, _CLOCK) or b""
        self._number = decode_time(self._clock) if self._clock else 0

    def bind(self, tables: Mapping[str, Any]) -> None:
        """Get to know the partition of the table."""
        self._table = tables[self._table_name]

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Take a record; return those that have waited long enough, with their rows."""
        if value is None:
            return ()
        if key is None:  # nothing to look up, so nothing to wait for
            return (Result(None, ts, (value, None)),) if self._left else ()
        if ts < self.stream_time - self._grace:
            return self._joined(key, ts, value)
        self.stream_time = max(self.stream_time, ts)
        self._number += 1
        address = b"%b%b%b" % (encode_time(ts), key, encode_time(self._number))
        self._waiting[address] = value
        self._dirty[address] = True
        self._timers.set(ts + self._grace, address)
        now = self.stream_time
        return self._release(now) if now >= self._timers.next_ms else ()

    def _joined(self, key: bytes, ts: int, value: Any) -> Sequence[Result]:
        """Join one record with what the table said at its time."""
        assert self._table is not None
        row = self._table.get_at(self._key.decode(key), ts)
        return (Result(key, ts, (value, row)),) if row is not None or self._left else ()

    def _release(self, now: int) -> list[Result]:
        """Join the records whose time is up, by (time, key, arrival)."""
        addresses = sorted(self._timers.due(now), key=_order)
        waiting = self._waiting
        missing = [address for address in addresses if address not in waiting]
        if missing:
            found = self._store.get_many(self.family, missing)
            for address, raw in zip(missing, found, strict=True):
                if raw is not None:
                    waiting[address] = self._value.decode(raw)
        results: list[Result] = []
        for address in addresses:
            if address in waiting:
                ts, key, _ = _order(address)
                results += self._joined(key, ts, waiting.pop(address))
                if not self._dirty.pop(address, False):  # else it came since the last cut
                    self._dirty[address] = False
        return results

    def close_all(self) -> Sequence[Result]:
        """Join all that wait: the input has ended."""
        return self._release(NEVER - 1)

    def items(self) -> list[tuple[bytes, int, Any]]:
        """Return key, time (ms) and value of the records that wait, as they will come out."""
        rows = {
            address: self._value.decode(raw)
            for address, raw in self._store.scan(self.family, b"", _CLOCK)
            if self._dirty.get(address, True)
        }
        rows |= self._waiting
        return [
            (key, ts, rows[address])
            for address in sorted(rows, key=_order)
            for ts, key, _ in [_order(address)]
        ]

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode, waiting = self._value.encode, self._waiting
        changes: list[Change] = [
            (address, encode(waiting[address]) if alive else None)
            for address, alive in self._dirty.items()
        ]
        self._dirty = {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        clock = encode_time(self._number)
        if changes and clock != self._clock:
            self._clock = clock
            changes.append((_CLOCK, clock))
        return Cut(changes, {self.family: changes, TIMERS: self._timers.cut()})

    def held(self) -> int:
        """Return about how many bytes of memory the records take."""
        return len(self._waiting) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound what is in memory again."""
        self._timers.committed()
        most = self.room()
        if len(self._waiting) > most:
            self._waiting = {
                address: value for address, value in self._waiting.items() if address in self._dirty
            }


def restored(family: str, changes: list[Change], grace_ms: int) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    timers = [
        (decode_time(address) + grace_ms, address)
        for address, raw in changes
        if raw is not None and address != _CLOCK
    ]
    return {family: changes, TIMERS: timer_rows(family, timers)}


def _order(address: bytes) -> tuple[int, bytes, int]:
    """Return time (ms), key and number of a record."""
    return decode_time(address), address[TIME_BYTES:-TIME_BYTES], decode_time(address[-TIME_BYTES:])
