"""Joins of two streams within a window of time, as Kafka Streams 4.x means them.

A left record at t meets the right records of its key in [t - before, t + after], both ends
included, and the other way round. Neither is dropped for being late: a record meets what the other
side still keeps, which is what is newer than its newest record by less than before + after + grace.
In a left or outer join, a record that has met nobody comes out alone once stream time (of both
sides together) is beyond its window and grace; at once, if its window is below stream time when it
comes. Only a record that is the newest so far lets others out. Kafka Streams may be later than that
(:mod:`tables.lonely`): on request this is, too.

Each record is one entry of the store, so a meeting is one range of them; what is due is found by
timers (:mod:`tables.reach`), which are hints: the entries say what is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.lane import Lane, Row
from tables.lonely import Mark
from tables.operator import Result
from tables.reach import (
    ALONE,
    CLOCK,
    LEFT,
    MET,
    RIGHT,
    SIDES,
    Reach,
    address_of,
    beyond,
    closing,
    expiry,
    key_in,
    place_in,
    time_in,
)
from tables.store import TIMERS
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import NEVER, Timers
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tables.codec import Codec
    from tables.store import Change, Store

How = Literal["inner", "left", "outer"]
Release = Literal["close", "kafka"]


class _Side:
    """What one side keeps: its lanes by key, and the time of its newest record (ms).

    ``complete``: a key that has no lane has no record in the store either.
    """

    __slots__ = ("codec", "complete", "expiry", "lanes", "newest", "outer")

    def __init__(self, codec: Codec[Any], *, outer: bool, complete: bool, expiry: Timers) -> None:
        self.codec = codec
        self.complete = complete
        self.expiry = expiry
        self.lanes: dict[bytes, Lane] = {}
        self.newest = NO_TIME
        self.outer = outer

    def has_more(self, lane: Lane | None, ts: int) -> bool:
        """Say whether the store may have records from ``ts`` on that a key's lane has not."""
        return not self.complete if lane is None else ts < lane.since


class StreamJoinPartition(Overlay):
    """One partition of a join of two streams; an operator's (:mod:`tables.operator`).

    Args:
        family: the column family.
        store: where committed records are.
        reach: who meets whom.
        how: ``inner``; ``left``: left records come out alone too; ``outer``: all do.
        release: when lonely records come out: as soon as they are due (``close``), or when Kafka
            Streams would look for them (``kafka``).
        codecs: of the values, left and right.
        cache_entries: records kept in memory after a commit; new ones always are.
    """

    __slots__ = (
        "_clock", "_closing", "_dirty", "_gone", "_held", "_kept", "_mark", "_number", "_reach",
        "_released", "_sides", "_stretch", "stream_time",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        reach: Reach,
        how: How,
        release: Release = "close",
        codecs: Sequence[Codec[Any]],
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self._reach = reach
        self._kept, self._stretch = reach.kept_ms, reach.stretch_ms
        outer = (how != "inner", how == "outer")
        self._sides = tuple(
            _Side(
                codecs[side],
                outer=outer[side],
                complete=not store.scan(family, bytes([side]), bytes([side + 1]), 1),
                expiry=Timers(expiry(family, side), store),
            )
            for side in SIDES
        )
        self._closing = Timers(closing(family), store)
        self._dirty: list[tuple[int, bytes, Row]] = []
        self._gone: list[bytes] = []  # addresses of what the store has no use for
        self._held = 0
        self._number = 0
        self._released = NO_TIME  # lonely records that were due then are out
        mark = NEVER
        self._clock = store.get(family, CLOCK)
        if self._clock is not None:
            times = msgspec.msgpack.decode(self._clock)
            self.stream_time, self._released, self._number, mark = times[:4]
            self._sides[LEFT].newest, self._sides[RIGHT].newest = times[4:]
        late = release == "kafka" and how != "inner"
        self._mark = Mark(reach, self._lonely(), mark) if late else None

    def _lonely(self) -> Iterator[tuple[int, int]]:
        """Yield side and time (ms) of the records in the store that have yet to come out alone."""
        for addresses in self._closing.stored():
            found = self._store.get_many(self.family, addresses)
            for address, raw in zip(addresses, found, strict=True):
                if raw is not None and self._is_alone(address, raw):
                    yield address[0], time_in(address)

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Take a record; return the lonely ones that are due by it, and then whom it meets.

        Values are pairs (left, right). Without a key a record meets nobody; without a value it only
        moves stream time on.
        """
        if ts > self.stream_time:  # noqa: PLR1730  (once an event; max() costs twice as much)
            self.stream_time = ts
        own, other = self._sides[side], self._sides[1 - side]
        if key is None or value is None:
            lonely = own.outer and value is not None
            return (Result(None, ts, _alone(side, value)),) if lonely else ()
        results = self._let_out(side, ts) if ts == self.stream_time else []
        met = self._met(side, other, key, ts)
        alone = False
        if met:
            self._pair(side, key, ts, value, met, results)
        elif own.outer:
            alone = ts + self._reach.forward(side) >= self.stream_time
            if not alone:
                results.append(Result(key, ts, _alone(side, value)))
        self._keep(side, key, ts, value, alone=alone)
        return results

    def _let_out(self, side: int, now: int) -> list[Result]:
        """Return the lonely records that are due by a record that is the newest so far."""
        mark = self._mark
        if mark is not None and not mark.is_due(side, now):
            return []
        results = self._close(now) if now >= self._closing.next_ms else []
        self._released = now
        if mark is not None:
            mark.look(now)
        return results

    def _met(self, side: int, other: _Side, key: bytes, ts: int) -> list[Row]:
        """Return the records of the other side that one of this side meets, in order."""
        reach = self._reach
        first = max(ts - reach.forward(1 - side), other.newest - self._kept + 1)
        lane = other.lanes.get(key)
        if other.has_more(lane, first):
            lane = self._load(1 - side, key, first)
        return lane.between(first, ts + reach.forward(side)) if lane else []

    def _pair(
        self, side: int, key: bytes, ts: int, value: Any, met: list[Row], results: list[Result]
    ) -> None:
        """Add a record's pairs to the results; whom it met is not lonely any more."""
        for row in met:
            if row.alone:
                row.alone = False
                self._touch(1 - side, key, row)
                if self._mark is not None:
                    self._mark.remove(1 - side, row.ts)
            pair = (value, row.value) if side == LEFT else (row.value, value)
            results.append(Result(key, max(ts, row.ts), pair))

    def _keep(self, side: int, key: bytes, ts: int, value: Any, *, alone: bool) -> None:
        """Keep a record for others to meet, or until it comes out alone."""
        own = self._sides[side]
        if ts > own.newest:
            before, own.newest = own.newest, ts
            if ts >= own.expiry.next_ms:
                self._expire(side, before, ts)
        if ts + self._kept <= own.newest and not alone:
            return
        self._number += 1
        row = Row(ts, self._number, value, alone, False, False)  # noqa: FBT003
        lane = own.lanes.get(key)
        if lane is None:
            lane = own.lanes[key] = Lane(NO_TIME if own.complete else NEVER)
        lane.add(row)
        self._held += 1
        self._touch(side, key, row)
        if not lane.expiry - self._stretch < ts + self._kept <= lane.expiry:
            lane.expiry = self._reach.out_of_reach(ts)
            own.expiry.set(lane.expiry, key)
        if alone:
            self._closing.set(self._reach.closes(side, ts), address_of(side, key, ts, row.number))
            if self._mark is not None:
                self._mark.add(side, ts)

    def _touch(self, side: int, key: bytes, row: Row) -> None:
        if not row.dirty:
            row.dirty = True
            self._dirty.append((side, key, row))

    def _load(self, side: int, key: bytes, first: int) -> Lane:
        """Bring what a side has of a key from time ``first`` on into memory."""
        own = self._sides[side]
        lane = own.lanes.get(key)
        if lane is None:
            lane = Lane(NEVER)
        begin, end = beyond(side, key, first - 1), beyond(side, key, lane.since - 1)
        stored = [
            self._read(address, raw) for address, raw in self._store.scan(self.family, begin, end)
        ]
        oldest = own.newest - self._kept + 1  # what is older is gone, or will be with the next cut
        new = lane.complete(first, [row for row in stored if row.ts >= oldest or row.alone])
        self._held += new
        if lane:
            own.lanes[key] = lane
        return lane

    def _read(self, address: bytes, raw: bytes) -> Row:
        """Make a record of its entry in the store."""
        ts, number = place_in(address)
        value = self._sides[address[0]].codec.decode(raw[1:])
        return Row(ts, number, value, self._is_alone(address, raw), False, True)  # noqa: FBT003

    def _is_alone(self, address: bytes, raw: bytes) -> bool:
        """Say whether an entry of the store is of a record that has yet to come out alone."""
        closes = self._reach.closes(address[0], time_in(address))
        return raw[:1] == ALONE and closes > self._released

    def _close(self, now: int) -> list[Result]:
        """Let the lonely records out that are due, by (time, right before left, key, arrival)."""
        found: list[tuple[int, bool, bytes, int, Any]] = []
        elsewhere: list[bytes] = []
        for address in self._closing.due(now):
            side, key = address[0], key_in(address)
            own = self._sides[side]
            lane = own.lanes.get(key)
            at = -1 if lane is None else lane.find(address)
            if lane is not None and at >= 0:
                row = lane[at]
                if row.alone:
                    row.alone = False
                    found.append((row.ts, side == LEFT, key, row.number, row.value))
                    if row.ts + self._kept <= own.newest:
                        del lane[at]
                        self._forget(side, key, row)
            elif own.has_more(lane, time_in(address)):
                elsewhere.append(address)
        if elsewhere:
            found.extend(self._close_stored(elsewhere))
        found.sort(key=lambda each: each[:4])
        return [
            Result(key, ts, (value, None) if left else (None, value))
            for ts, left, key, _, value in found
        ]

    def _close_stored(self, addresses: list[bytes]) -> Iterator[tuple[int, bool, bytes, int, Any]]:
        """Let lonely records out that are in the store only."""
        stored = self._store.get_many(self.family, addresses)
        for address, raw in zip(addresses, stored, strict=True):
            side = address[0]
            if raw is not None and self._is_alone(address, raw):
                row = self._read(address, raw)
                yield row.ts, side == LEFT, key_in(address), row.number, row.value
                if row.ts + self._kept <= self._sides[side].newest:
                    self._gone.append(address)

    def _expire(self, side: int, before: int, now: int) -> None:
        """Drop what nobody can meet any more; what has yet to come out stays until then.

        Args:
            before, now: the side's time (ms): what was over before has been dropped then.
        """
        own = self._sides[side]
        first, last = before - self._kept - self._stretch, now - self._kept
        for key in own.expiry.due(now):
            lane = own.lanes.get(key)
            gone: dict[bytes, None] = {}
            if own.has_more(lane, first):
                begin, end = beyond(side, key, first - 1), beyond(side, key, last)
                rows = self._store.scan(self.family, begin, end)
                gone = dict.fromkeys(each for each, raw in rows if not self._is_alone(each, raw))
            for row in () if lane is None else lane.take_over(last):
                self._held -= 1
                row.dirty = False
                if row.stored:
                    gone[address_of(side, key, row.ts, row.number)] = None
            if lane is not None and not lane:
                del own.lanes[key]
            self._gone.extend(gone)

    def _forget(self, side: int, key: bytes, row: Row) -> None:
        """Note that a record has left its lane."""
        self._held -= 1
        row.dirty = False
        if row.stored:
            self._gone.append(address_of(side, key, row.ts, row.number))

    def close_all(self) -> Sequence[Result]:
        """Let all lonely records out and forget the others: the input has ended."""
        results = self._close(NEVER - 1)
        if self._mark is not None:
            self._mark.look(NEVER)
        self._gone.extend(address for address, _ in self._store.scan(self.family, b"", CLOCK))
        for side, own in enumerate(self._sides):
            own.expiry.due(NEVER - 1)
            for key, lane in own.lanes.items():
                for row in lane:
                    self._forget(side, key, row)
            own.lanes.clear()
            own.complete = True
        return results

    def items(self) -> list[tuple[str, bytes, int, Any]]:
        """Return side, key, time (ms) and value of what is kept, by side, key, time, arrival."""
        keys = {
            (address[0], key_in(address))
            for address, _ in self._store.scan(self.family, b"", CLOCK)
        }
        keys |= {(side, key) for side in SIDES for key in self._sides[side].lanes}
        found = []
        for side, key in sorted(keys):
            own = self._sides[side]
            lane = own.lanes.get(key)
            if own.has_more(lane, NO_TIME):
                lane = self._load(side, key, NO_TIME)
            found += [("right" if side else "left", key, row.ts, row.value) for row in lane or ()]
        return found

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        changes: list[Change] = [(address, None) for address in self._gone]
        encoders = [own.codec.encode for own in self._sides]
        for side, key, row in self._dirty:
            if row.dirty:  # else it has been dropped
                row.dirty, row.stored = False, True
                first = ALONE if row.alone else MET
                address = address_of(side, key, row.ts, row.number)
                changes.append((address, first + encoders[side](row.value)))
        self.entry_bytes = entry_bytes(changes[len(self._gone) :], self.entry_bytes)
        self._gone, self._dirty = [], []
        left, right = self._sides
        mark = NEVER if self._mark is None else self._mark.at
        times = (self.stream_time, self._released, self._number, mark, left.newest, right.newest)
        clock = msgspec.msgpack.encode(times)
        if clock != self._clock and self.stream_time != NO_TIME:
            self._clock = clock
            changes.append((CLOCK, clock))
        timers = [*self._closing.cut(), *left.expiry.cut(), *right.expiry.cut()]
        return Cut(changes, {self.family: changes, TIMERS: timers})

    def held(self) -> int:
        """Return about how many bytes of memory the records take."""
        return self._held * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return (len(self._dirty) + len(self._gone)) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound what is in memory again."""
        self._closing.committed()
        for own in self._sides:
            own.expiry.committed()
        most = self.room()
        excess = self._held - most
        if excess <= 0:
            return
        excess += most // 4
        for own in self._sides:
            for key in list(own.lanes):
                if excess <= 0:
                    return
                lane = own.lanes[key]
                dropped = lane.evict(excess)
                if dropped:
                    own.complete = False
                    excess -= dropped
                    self._held -= dropped
                if not lane:
                    del own.lanes[key]


def _alone(side: int, value: Any) -> tuple[Any, Any]:
    return (value, None) if side == LEFT else (None, value)
