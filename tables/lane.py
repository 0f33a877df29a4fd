"""The records of one key on one side of a join of two streams, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Any

import msgspec

from tables.reach import place_in
from tables.window import NO_TIME

_time_of = attrgetter("ts")
_place_of = attrgetter("ts", "number")


class Row(msgspec.Struct, gc=False, eq=False):
    """One record.

    Attributes:
        number: of its arrival; also its identity.
        alone: it has met nobody, and has not come out yet.
        dirty: it has changed since the last cut.
        stored: the store has it, or will have it with the cut that is on its way.
    """

    ts: int
    number: int
    value: Any
    alone: bool
    dirty: bool
    stored: bool


class Lane(list[Row]):
    """Records by (time, arrival).

    Attributes:
        since: all that the store has from this time (ms) on are here; of older ones, perhaps some.
        expiry: the last timer (ms) that was set for it.
    """

    __slots__ = ("expiry", "since")

    def __init__(self, since: int) -> None:
        super().__init__()
        self.since = since
        self.expiry = NO_TIME

    def add(self, row: Row) -> None:
        """Put in the record that came last."""
        if not self or self[-1].ts <= row.ts:
            self.append(row)
        else:
            self.insert(bisect_right(self, row.ts, key=_time_of), row)

    def complete(self, since: int, stored: list[Row]) -> int:
        """Put in what the store has from ``since`` on; return how many records were not here."""
        known = {row.number for row in self[: bisect_left(self, self.since, key=_time_of)]}
        new = [row for row in stored if row.number not in known]
        self.extend(new)
        self.sort(key=_place_of)
        self.since = since
        return len(new)

    def evict(self, most: int) -> int:
        """Drop the oldest records, as far as the store has them as they are; return how many."""
        end = 0
        while end < len(self) and end < most and not self[end].dirty:
            end += 1
        if end:
            self.since = max(self.since, self[end - 1].ts + 1)
            del self[:end]
        return end

    def between(self, first: int, last: int) -> list[Row]:
        """Return the records from time ``first`` to ``last`` (ms), both included."""
        if self[0].ts >= first and self[-1].ts <= last:
            return self
        begin = bisect_left(self, first, key=_time_of)
        return self[begin : bisect_right(self, last, begin, key=_time_of)]

    def take_over(self, last: int) -> list[Row]:
        """Take out the records up to time ``last`` (ms) that have not yet to come out alone."""
        end = bisect_right(self, last, key=_time_of)
        over = self[:end]
        self[:end] = [row for row in over if row.alone]
        return [row for row in over if not row.alone]

    def find(self, address: bytes) -> int:
        """Return where the record of an address is, or -1."""
        place = place_in(address)
        at = bisect_left(self, place, key=_place_of)
        return at if at < len(self) and _place_of(self[at]) == place else -1
