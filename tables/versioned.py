"""One partition of a table that remembers what it said before: keys to versions with their times.

As Kafka Streams' versioned stores do: a version holds from its own time on, inclusive, until the
next one; a deletion is a version too. An update may come late and is put where it belongs; one that
is older than the table's time less its history is dropped. What the table said longer ago than that
nobody knows, unless the newest version held already.

Here a deletion at the very time of the version that it deletes counts, too (in Kafka Streams it
leaves no trace, and an older update that comes later passes for the newest).

Each version is one entry of the store, under its key and time; what is out of history is found by
timers, one a key and stretch of time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Any

from tables.codec import TIME_BYTES, decode_time, encode_time
from tables.store import TIMERS
from tables.table import ABSENT, Cut, Overlay, entry_bytes
from tables.timers import NEVER, Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tables.codec import Codec
    from tables.store import Change, Store

_LENGTH_BYTES = 4
_FEW = 8
"""A key with so many versions in memory leaves it as a whole, one with more loses its oldest."""

_STRETCHES = 8
"""What is out of history is looked for so often in the time that it covers."""

_DELETED, _VALUE = b"\0", b"\1"
"""What an entry begins with: whether the version is a deletion, or has a value."""


class _Versions:
    """What a key was and is: times (ms), ascending, and values; ABSENT is a deletion.

    Attributes:
        since: all that the store has from this time (ms) on are here, and the newest is.
        expiry: the last timer (ms) that was set for it.
    """

    __slots__ = ("expiry", "since", "times", "values")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: list[Any] = []
        self.since = NO_TIME
        self.expiry = NO_TIME

    def drop(self, count: int) -> None:
        """Drop the oldest from memory."""
        del self.times[:count], self.values[:count]


class VersionedPartition(Overlay):
    """Versions by key, for one partition. Not safe for threads; never awaits.

    Args:
        family: the column family, which is the table's name.
        store: where committed versions are.
        key: codec of the keys.
        value: codec of the values.
        history_ms: how far back the table can be asked, from its newest update on.
        cache_entries: versions kept in memory after a commit; changed keys always are.
    """

    __slots__ = (
        "_changed", "_changes", "_complete", "_expiry", "_held", "_history", "_key", "_lanes",
        "_value", "stream_time",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        key: Codec[Any],
        value: Codec[Any],
        history_ms: int,
        cache_entries: int = 100_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self._key = key
        self._value = value
        self._history = history_ms
        self._lanes: dict[Any, _Versions] = {}
        self._complete = not store.scan(family, limit=1)  # a key that has no lane has no versions
        self._changes: dict[bytes, bytes | None] = {}
        self._changed: set[Any] = set()
        self._held = 0
        self._expiry = Timers(family, store)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the newest value of ``key``, or ``default``."""
        values = self._versions(key).values
        return default if not values or values[-1] is ABSENT else values[-1]

    def get_at(self, key: Any, ts: int) -> Any:
        """Return the value that ``key`` had at ``ts`` (ms), or None."""
        lane = self._versions(key)
        times = lane.times
        at = len(times) - 1 if times and times[-1] <= ts else self._older(key, lane, ts)
        value = lane.values[at] if at >= 0 else None
        return None if value is ABSENT else value

    def _older(self, key: Any, lane: _Versions, ts: int) -> int:
        """Return which version held at ``ts``, where it is not the newest; -1: nobody knows."""
        if ts < self.stream_time - self._history:
            return -1
        if ts < lane.since:
            self._load(key, lane)
        return bisect_right(lane.times, ts) - 1

    def put(self, key: Any, ts: int, value: Any, raw: bytes | None = None) -> bool:
        """Say that ``key`` is ``value`` from ``ts`` (ms) on; return whether that is the newest.

        Args:
            value: ABSENT: it is deleted.
            raw: the value's bytes, where they are known.
        """
        if ts > self.stream_time:
            self.stream_time = ts
            if ts >= self._expiry.next_ms:
                self._expire(ts)
        elif ts < self.stream_time - self._history:
            return False
        lane = self._versions(key)
        if ts < lane.since:
            self._load(key, lane)
        times, raw_key = lane.times, self._key.encode(key)
        at = len(times) if not times or times[-1] < ts else bisect_left(times, ts)
        if at < len(times) and times[at] == ts:
            lane.values[at] = value
        else:
            times.insert(at, ts)
            lane.values.insert(at, value)
            self._held += len(times) > 1  # an empty lane counts as one, too
        newest = at == len(times) - 1
        if at > 0 or value is ABSENT:
            self._expire_later(lane, raw_key, ts)
        if not newest:
            self._expire_later(lane, raw_key, times[at + 1])
        if value is ABSENT:
            entry = _DELETED
        else:
            entry = _VALUE + (self._value.encode(value) if raw is None else raw)
        self._changes[_prefix(raw_key) + encode_time(ts)] = entry
        self._changed.add(key)
        return newest

    def _expire_later(self, lane: _Versions, raw_key: bytes, ts: int) -> None:
        """Look again once the table's time says that what was before ``ts`` is out of history."""
        expiry = out_of_history(ts, self._history)
        if expiry != lane.expiry:
            lane.expiry = expiry
            self._expiry.set(expiry, raw_key)

    def delete(self, key: Any, ts: int) -> bool:
        """Say that there is no ``key`` from ``ts`` (ms) on; return whether that is the newest."""
        return self.put(key, ts, ABSENT)

    def follow(
        self, keys: Iterable[bytes | None], values: Iterable[Any], raws: Any, times: Iterable[int]
    ) -> None:
        """Apply records of the topic that this table is; one without a key is dropped."""
        decode_key = self._key.decode
        for key, value, raw, ts in zip(keys, values, raws, times, strict=True):
            if key is not None:
                self.put(decode_key(key), ts, ABSENT if raw is None else value, raw)

    def _versions(self, key: Any) -> _Versions:
        """Return the versions of a key; an empty lane says that it has none."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Versions()
            self._held += 1
            if not self._complete:
                lane.since = NEVER
                self._load(key, lane)
        return lane

    def _load(self, key: Any, lane: _Versions) -> None:
        """Bring the versions of a key that are in the store only into memory."""
        prefix = _prefix(self._key.encode(key))
        rows = self._store.scan(self.family, prefix, prefix + encode_time(lane.since))
        before = len(lane.times) or 1
        lane.times[:0] = [decode_time(address[-TIME_BYTES:]) for address, _ in rows]
        lane.values[:0] = [self._decode(raw) for _, raw in rows]
        lane.since = NO_TIME
        self._held += (len(lane.times) or 1) - before

    def _decode(self, raw: bytes) -> Any:
        return ABSENT if raw[:1] == _DELETED else self._value.decode(raw[1:])

    def _expire(self, now: int) -> None:
        """Drop the versions that did not hold any more where the history begins."""
        edge = now - self._history
        for raw_key in self._expiry.due(now):
            key = self._key.decode(raw_key)
            lane = self._versions(key)
            if lane.since > NO_TIME:
                self._load(key, lane)
            lane.expiry = NO_TIME
            holds = bisect_right(lane.times, edge) - 1
            over = holds + 1 if holds >= 0 and lane.values[holds] is ABSENT else holds
            if over > 0:
                prefix = _prefix(raw_key)
                for ts in lane.times[:over]:
                    self._changes[prefix + encode_time(ts)] = None
                self._changed.add(key)
                lane.drop(over)
                self._held -= over if lane.times else over - 1

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield every key with its newest value, in the order of the keys' bytes."""
        keys = {address[_LENGTH_BYTES:-TIME_BYTES] for address, _ in self._store.scan(self.family)}
        keys |= {self._key.encode(key) for key in self._lanes}
        for raw_key in sorted(keys):
            key = self._key.decode(raw_key)
            value = self.get(key, ABSENT)
            if value is not ABSENT:
                yield key, value

    def versions(self, key: Any) -> list[tuple[int, Any]]:
        """Return time (ms) and value of each version of a key, oldest first; None is a deletion."""
        lane = self._versions(key)
        if lane.since > NO_TIME:
            self._load(key, lane)
        return [
            (ts, None if value is ABSENT else value)
            for ts, value in zip(lane.times, lane.values, strict=True)
        ]

    def held(self) -> int:
        """Return about how many bytes of memory the versions take."""
        return self._held * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._changes) * self.entry_bytes

    def cut(self) -> Cut:
        """Return what changed since the last cut, for changelog and store alike."""
        changes: list[Change] = list(self._changes.items())
        self._changes, self._changed = {}, set()
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut(changes, {self.family: changes, TIMERS: self._expiry.cut()})

    def committed(self) -> None:
        """The last cut is in the store: bound what is in memory again."""
        self._expiry.committed()
        most = self.room()
        excess = self._held - most
        if excess <= 0:
            return
        self._complete = False
        excess += most // 4
        for key in list(islice(self._lanes, excess)):
            if excess <= 0:
                return
            before = self._held
            self._evict(key, excess)
            excess -= before - self._held

    def _evict(self, key: Any, most: int) -> None:
        """Drop the oldest versions of a key from memory, but not the newest unless they are few."""
        lane = self._lanes[key]
        times = lane.times
        if len(times) <= _FEW:
            if key not in self._changed:
                self._held -= len(times) or 1
                del self._lanes[key]
            return
        prefix, end = _prefix(self._key.encode(key)), 0
        while end < min(most, len(times) - 1):
            if prefix + encode_time(times[end]) in self._changes:
                break
            end += 1
        if end:
            lane.since = times[end - 1] + 1
            lane.drop(end)
            self._held -= end


def out_of_history(ts: int, history_ms: int) -> int:
    """Return when, by the table's time, to drop what a version of ``ts`` (ms) has replaced."""
    stretch = max(1, history_ms // _STRETCHES)
    return -(-(ts + history_ms) // stretch) * stretch


def restored(family: str, changes: list[Change], history_ms: int) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    timers = {
        (
            out_of_history(decode_time(address[-TIME_BYTES:]), history_ms),
            address[_LENGTH_BYTES:-TIME_BYTES],
        )
        for address, raw in changes
        if raw is not None
    }
    return {family: changes, TIMERS: timer_rows(family, timers)}


def _prefix(raw_key: bytes) -> bytes:
    return len(raw_key).to_bytes(_LENGTH_BYTES, "big") + raw_key
