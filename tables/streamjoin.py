"""Joins of two streams within a window of time, as Kafka Streams 4.x means them.

A left record at t meets the right records of its key in [t - before, t + after], both ends
included, and the other way round. Neither is dropped for being late: a record meets what the other
side still keeps, which is what is newer than its newest record by less than before + after + grace.
In a left or outer join, a record that has met nobody comes out alone once stream time (of both
sides together) is beyond its window and grace; at once, if its window is below stream time when it
comes.

Kafka Streams may let a lonely record out later than that, since it looks for them only when the
oldest of those it saw *last* is due. Here they come out when they are due.

Each record is one entry of the store, under its side, key, time and number of arrival, so a meeting
is one range. Two kinds of timers find what is due: one a lonely record, and one a key and stretch
of time for what nobody can meet any more. Both are hints; the entries say what is true.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.operator import Result
from tables.store import TIMERS
from tables.table import ENTRY_BYTES, Cut, entry_bytes
from tables.timers import NEVER, Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tables.codec import Codec
    from tables.store import Change, Store

How = Literal["inner", "left", "outer"]

LEFT, RIGHT = 0, 1
_SIDES = (LEFT, RIGHT)
_CLOCK = b"\xff"
"""The key of the entry that says how far time is; those of records begin with their side."""

_LENGTH_BYTES = 4
_KEY_AT = 1 + _LENGTH_BYTES
_TAIL = 2 * TIME_BYTES
_END = b"\xff" * (_TAIL + 1)  # above the time and number of every record
_STRETCHES = 8
"""What is out of reach is looked for so often in the time that a record is kept."""

_time_of = attrgetter("ts")
_place_of = attrgetter("ts", "number")
_MET, _ALONE = b"\0", b"\1"


class Reach(msgspec.Struct, frozen=True):
    """Which right records a left one meets: from ``before_ms`` before it to ``after_ms`` after.

    Attributes:
        grace_ms: how long a lonely record waits beyond that for one that is late.
    """

    before_ms: int
    after_ms: int
    grace_ms: int = 0

    @property
    def kept_ms(self) -> int:
        """How much newer the newest record of a side may be, for one to be met still."""
        return max(1, self.before_ms + self.after_ms + self.grace_ms)

    def forward(self, side: int) -> int:
        """Return how far after its own time a record of a side meets others, in ms."""
        return self.after_ms if side == LEFT else self.before_ms

    @property
    def stretch_ms(self) -> int:
        """In which steps of time to look for what is out of reach."""
        return max(1, self.kept_ms // _STRETCHES)

    def out_of_reach(self, ts: int) -> int:
        """Return when to look for records of ``ts`` that nobody can meet, by their side's time."""
        return -(-(ts + self.kept_ms) // self.stretch_ms) * self.stretch_ms

    def closes(self, side: int, ts: int) -> int:
        """Return the stream time at which a lonely record comes out."""
        return ts + self.forward(side) + self.grace_ms + 1


class _Row(msgspec.Struct, gc=False, eq=False):
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


class _Lane(list[_Row]):
    """The records of one key on one side that are in memory, by (time, arrival).

    ``whole``: the store has no others. ``expiry``: the last timer (ms) that was set for it.
    """

    __slots__ = ("expiry", "whole")

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.expiry = NEVER


class _Side:
    """What one side keeps: its lanes by key, and the time of its newest record (ms).

    ``complete``: a key that has no lane has no record in the store either.
    """

    __slots__ = ("codec", "complete", "expiry", "lanes", "newest", "outer")

    def __init__(self, codec: Codec[Any], *, outer: bool, complete: bool, expiry: Timers) -> None:
        self.codec = codec
        self.complete = complete
        self.expiry = expiry
        self.lanes: dict[bytes, _Lane] = {}
        self.newest = NO_TIME
        self.outer = outer


class StreamJoinPartition:
    """One partition of a join of two streams; an operator's (:mod:`tables.operator`).

    Args:
        family: the column family.
        store: where committed records are.
        reach: who meets whom.
        how: ``inner``; ``left``: left records come out alone too; ``outer``: all do.
        codecs: of the values, left and right.
        cache_entries: records kept in memory after a commit; new ones always are.
    """

    __slots__ = (
        "_clock", "_closing", "_dirty", "_gone", "_held", "_kept", "_number", "_reach", "_released",
        "_sides", "_store", "_stretch", "bytes_max", "cache_entries", "entry_bytes", "family",
        "stream_time",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        reach: Reach,
        how: How,
        codecs: Sequence[Codec[Any]],
        cache_entries: int = 200_000,
    ) -> None:
        self.family = family
        self.cache_entries = cache_entries
        self.bytes_max = 1 << 62
        self.entry_bytes = ENTRY_BYTES
        self.stream_time = NO_TIME
        self._store = store
        self._reach = reach
        self._kept, self._stretch = reach.kept_ms, reach.stretch_ms
        outer = (how != "inner", how == "outer")
        self._sides = tuple(
            _Side(
                codecs[side],
                outer=outer[side],
                complete=not store.scan(family, bytes([side]), bytes([side + 1]), 1),
                expiry=Timers(_expiry(family, side), store),
            )
            for side in _SIDES
        )
        self._closing = Timers(_closing(family), store)
        self._dirty: list[tuple[int, bytes, _Row]] = []
        self._gone: list[bytes] = []  # addresses of what the store has no use for
        self._held = 0
        self._number = 0
        self._released = NO_TIME  # lonely records that were due then are out
        self._clock = store.get(family, _CLOCK)
        if self._clock is not None:
            times = msgspec.msgpack.decode(self._clock)
            self.stream_time, self._released, self._number = times[:3]
            self._sides[LEFT].newest, self._sides[RIGHT].newest = times[3:]

    def bind(self, tables: Any) -> None:
        """Take no notice: it looks nothing up."""

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
        results: list[Result] = []
        if ts == self.stream_time:  # an older one lets nobody out
            if ts >= self._closing.next_ms:
                results = self._close(ts)
            self._released = ts
        met = self._met(side, other, key, ts)
        alone = False
        if met:
            for row in met:
                if row.alone:
                    row.alone = False
                    self._touch(1 - side, key, row)
                pair = (value, row.value) if side == LEFT else (row.value, value)
                results.append(Result(key, max(ts, row.ts), pair))
        elif own.outer:
            alone = ts + self._reach.forward(side) >= self.stream_time
            if not alone:
                results.append(Result(key, ts, _alone(side, value)))
        self._keep(side, key, ts, value, alone=alone)
        return results

    def _met(self, side: int, other: _Side, key: bytes, ts: int) -> list[_Row]:
        """Return the records of the other side that one of this side meets, in order."""
        lane = other.lanes.get(key)
        if not (other.complete if lane is None else lane.whole):
            lane = self._load(1 - side, key)
        if not lane:
            return []
        reach = self._reach
        first = max(ts - reach.forward(1 - side), other.newest - self._kept + 1)
        last = ts + reach.forward(side)
        if lane[0].ts >= first and lane[-1].ts <= last:
            return lane
        begin = bisect_left(lane, first, key=_time_of)
        return lane[begin : bisect_right(lane, last, begin, key=_time_of)]

    def _keep(self, side: int, key: bytes, ts: int, value: Any, *, alone: bool) -> None:
        """Keep a record for others to meet, or until it comes out alone."""
        own = self._sides[side]
        if ts > own.newest:
            own.newest = ts
            if ts >= own.expiry.next_ms:
                self._expire(side, ts)
        if ts + self._kept <= own.newest and not alone:
            return
        self._number += 1
        row = _Row(ts, self._number, value, alone, False, False)  # noqa: FBT003
        lane = own.lanes.get(key)
        if lane is None:
            lane = own.lanes[key] = _Lane(whole=own.complete)
        if not lane or lane[-1].ts <= ts:
            lane.append(row)
        else:
            lane.insert(bisect_right(lane, ts, key=_time_of), row)
        self._held += 1
        self._touch(side, key, row)
        expiry = -(-(ts + self._kept) // self._stretch) * self._stretch
        if expiry != lane.expiry:
            lane.expiry = expiry
            own.expiry.set(expiry, key)
        if alone:
            self._closing.set(self._reach.closes(side, ts), _address(side, key, ts, row.number))

    def _touch(self, side: int, key: bytes, row: _Row) -> None:
        if not row.dirty:
            row.dirty = True
            self._dirty.append((side, key, row))

    def _load(self, side: int, key: bytes) -> _Lane:
        """Bring all records of a key on one side into memory."""
        own = self._sides[side]
        lane = own.lanes.get(key)
        if lane is None:
            lane = own.lanes[key] = _Lane(whole=True)
        lane.whole = True
        known = {row.number for row in lane}
        prefix = _prefix(side, key)
        for address, raw in self._store.scan(self.family, prefix, prefix + _END):
            row = self._read(address, raw)
            over = row.ts + self._kept <= own.newest and not row.alone  # it is gone, or will be
            if row.number not in known and not over:
                lane.append(row)
                self._held += 1
        lane.sort(key=_place_of)
        return lane

    def _read(self, address: bytes, raw: bytes) -> _Row:
        """Make a record of its entry in the store."""
        ts, number = decode_time(address[-_TAIL:]), decode_time(address[-TIME_BYTES:])
        value = self._sides[address[0]].codec.decode(raw[1:])
        return _Row(ts, number, value, self._is_alone(address, raw), False, True)  # noqa: FBT003

    def _is_alone(self, address: bytes, raw: bytes) -> bool:
        """Say whether an entry of the store is of a record that has yet to come out alone."""
        closes = self._reach.closes(address[0], decode_time(address[-_TAIL:]))
        return raw[:1] == _ALONE and closes > self._released

    def _close(self, now: int) -> list[Result]:
        """Let the lonely records out that are due, by (time, right before left, key, arrival)."""
        found: list[tuple[int, bool, bytes, int, Any]] = []
        elsewhere: list[bytes] = []
        for address in self._closing.due(now):
            side, key = address[0], address[_KEY_AT:-_TAIL]
            own = self._sides[side]
            lane = own.lanes.get(key)
            at = -1 if lane is None else _find(lane, address)
            if lane is not None and at >= 0:
                row = lane[at]
                if row.alone:
                    row.alone = False
                    found.append((row.ts, side == LEFT, key, row.number, row.value))
                    if row.ts + self._kept <= own.newest:
                        del lane[at]
                        self._forget(side, key, row)
            elif not (own.complete if lane is None else lane.whole):
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
                yield row.ts, side == LEFT, address[_KEY_AT:-_TAIL], row.number, row.value
                if row.ts + self._kept <= self._sides[side].newest:
                    self._gone.append(address)

    def _expire(self, side: int, now: int) -> None:
        """Drop what nobody can meet any more; what has yet to come out stays until then."""
        own = self._sides[side]
        last = now - self._kept
        for key in own.expiry.due(now):
            lane = own.lanes.get(key)
            if not (own.complete if lane is None else lane.whole):
                prefix = _prefix(side, key)
                rows = self._store.scan(self.family, prefix, prefix + encode_time(last + 1))
                self._gone.extend(each for each, raw in rows if not self._is_alone(each, raw))
            if lane is None:
                continue
            end = bisect_right(lane, last, key=_time_of)
            over = lane[:end]
            lane[:end] = [row for row in over if row.alone]
            for row in over:
                if not row.alone:
                    self._forget(side, key, row)
            if not lane:
                del own.lanes[key]

    def _forget(self, side: int, key: bytes, row: _Row) -> None:
        """Note that a record has left its lane."""
        self._held -= 1
        row.dirty = False
        if row.stored:
            self._gone.append(_address(side, key, row.ts, row.number))

    def close_all(self) -> Sequence[Result]:
        """Let all lonely records out and forget the others: the input has ended."""
        results = self._close(NEVER - 1)
        self._gone.extend(address for address, _ in self._store.scan(self.family, b"", _CLOCK))
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
            (address[0], address[_KEY_AT:-_TAIL])
            for address, _ in self._store.scan(self.family, b"", _CLOCK)
        }
        keys |= {(side, key) for side in _SIDES for key in self._sides[side].lanes}
        found = []
        for side, key in sorted(keys):
            own = self._sides[side]
            lane = own.lanes.get(key)
            if not (own.complete if lane is None else lane.whole):
                lane = self._load(side, key)
            found += [("right" if side else "left", key, row.ts, row.value) for row in lane or ()]
        return found

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        changes: list[Change] = [(address, None) for address in self._gone]
        encoders = [own.codec.encode for own in self._sides]
        for side, key, row in self._dirty:
            if row.dirty:  # else it has been dropped
                row.dirty, row.stored = False, True
                mark = _ALONE if row.alone else _MET
                address = _address(side, key, row.ts, row.number)
                changes.append((address, mark + encoders[side](row.value)))
        self.entry_bytes = entry_bytes(changes[len(self._gone) :], self.entry_bytes)
        self._gone, self._dirty = [], []
        left, right = self._sides
        times = (self.stream_time, self._released, self._number, left.newest, right.newest)
        clock = msgspec.msgpack.encode(times)
        if clock != self._clock and self.stream_time != NO_TIME:
            self._clock = clock
            changes.append((_CLOCK, clock))
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
        most = min(self.cache_entries, self.bytes_max // self.entry_bytes)
        if self._held <= most:
            return
        target = most - most // 4
        changed = {(side, key) for side, key, _ in self._dirty}
        for side, own in enumerate(self._sides):
            for key in list(own.lanes):
                if self._held <= target:
                    return
                if (side, key) not in changed:
                    self._held -= len(own.lanes.pop(key))
                    own.complete = False


def restored(family: str, changes: list[Change], reach: Reach) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    closing: list[tuple[int, bytes]] = []
    expiry: tuple[set[tuple[int, bytes]], ...] = (set(), set())
    for address, raw in changes:
        if raw is not None and address != _CLOCK:
            side, ts = address[0], decode_time(address[-_TAIL:])
            expiry[side].add((reach.out_of_reach(ts), address[_KEY_AT:-_TAIL]))
            if raw[:1] == _ALONE:
                closing.append((reach.closes(side, ts), address))
    timers = timer_rows(_closing(family), closing)
    for side in _SIDES:
        timers += timer_rows(_expiry(family, side), expiry[side])
    return {family: changes, TIMERS: timers}


def _closing(family: str) -> str:
    return f"{family}/closing"


def _expiry(family: str, side: int) -> str:
    return f"{family}/expiry{side}"


def _alone(side: int, value: Any) -> tuple[Any, Any]:
    return (value, None) if side == LEFT else (None, value)


def _prefix(side: int, key: bytes) -> bytes:
    return b"%c%b%b" % (side, len(key).to_bytes(_LENGTH_BYTES, "big"), key)


def _address(side: int, key: bytes, ts: int, number: int) -> bytes:
    return _prefix(side, key) + encode_time(ts) + encode_time(number)


def _find(lane: _Lane, address: bytes) -> int:
    """Return where in its lane the record of an address is, or -1."""
    place = decode_time(address[-_TAIL:]), decode_time(address[-TIME_BYTES:])
    at = bisect_left(lane, place, key=_place_of)
    return at if at < len(lane) and _place_of(lane[at]) == place else -1
