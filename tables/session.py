"""Session windows, as Kafka Streams 4.x means them.

Events of a key belong together while no gap between them is longer than ``gap``: an event exactly
``gap`` away still merges. A session is closed once stream time > end + gap + grace. An event is
late when the session it would make or join ends below stream time - gap - grace (at the edge it is
taken), so a late event that merges into a live session is saved.

All live sessions of a key (one or two, nearly always) are one entry of the store: one read, one
write and one changelog record a key a commit, and an empty list is a tombstone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from tables.codec import value_codec
from tables.store import TIMERS
from tables.table import Cut, Overlay, entry_bytes
from tables.timers import NEVER, Timers, timer_rows
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.codec import Codec
    from tables.store import Change, Store
    from tables.window import Aggregate, Emission


class Gap(msgspec.Struct, frozen=True):
    """How long a session may be quiet, and how long it waits for stragglers. In ms."""

    gap_ms: int
    grace_ms: int = 0


class Session(msgspec.Struct, array_like=True, gc=False):
    """One session: the timestamps of its first and last event (ms), and its value."""

    start: int
    end: int
    value: Any


_START, _END = attrgetter("start"), attrgetter("end")


class _Live(list[Session]):
    """The live sessions of one key, oldest first.

    Attributes:
        changed: since the last cut.
        stored: the store has an entry for the key, or will have it.
        only: the only one, where an event that it covers does no more than change it; see
            :meth:`SessionPartition.update`.
    """

    __slots__ = ("changed", "only", "stored")

    def __init__(self, sessions: list[Session] = [], *, stored: bool = False) -> None:  # noqa: B006
        super().__init__(sessions)
        self.changed = False
        self.only: Session | None = None
        self.stored = stored


def joined_by(sessions: list[Session], ts: int, gap_ms: int) -> slice:
    """Return which of a key's sessions, oldest first, an event at ``ts`` joins.

    They are apart by more than the gap, so their ends are in the order of their starts, and it is
    one or two that are looked at, however many there are.
    """
    first = bisect_left(sessions, ts - gap_ms, key=_END)
    last = bisect_right(sessions, ts + gap_ms, first, key=_START)
    return slice(first, last)


class SessionPartition(Overlay):
    """Live sessions of one partition: key -> its sessions.

    While the store was empty at the start and nothing was evicted, the overlay is *complete*: a
    key that is not in it has no session, and nothing is read from the store.
    """

    __slots__ = (
        "_aggregate", "_close_after", "_codec", "_complete", "_dirty", "_emission", "_emit",
        "_gap_ms", "_key", "_live", "_on_late", "_reduce", "_silent", "_timers", "gap", "late",
        "stream_time",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        gap: Gap,
        key: Codec[Any],
        aggregate: Aggregate,
        emission: Emission | None = None,
        emit: Callable[[Any, int, int, Any, int], None] | None = None,
        on_late: Callable[[], None] | None = None,
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.gap = gap
        self.stream_time = NO_TIME
        self.late = 0
        self._close_after = gap.gap_ms + gap.grace_ms
        self._key = key
        self._aggregate = aggregate
        assert aggregate.reduce is not None, f"table {family} has no reduce function"
        self._reduce = aggregate.reduce
        self._gap_ms = gap.gap_ms
        self._emission = emission if emit is not None else None
        self._silent = self._emission != "updates"
        self._emit = emit
        self._on_late = on_late
        self._codec = sessions_codec(aggregate.value_type)
        self._live: dict[Any, _Live] = {}
        self._dirty: dict[Any, _Live] = {}
        self._complete = not store.scan(family, limit=1)
        self._timers = Timers(family, store)

    def update(self, key: Any, ts: int, event: Any) -> None:
        """Add ``event`` to the session it belongs to; then close what is due."""
        sessions = self._live.get(key)
        if sessions is None:
            sessions = self._load(key)
        only = sessions.only
        if only is not None and only.start <= ts <= only.end + self._gap_ms:  # nearly every event
            if ts > only.end:  # noqa: PLR1730  (once an event; max() costs twice as much)
                only.end = ts
            only.value = self._reduce(only.value, event)
            if not sessions.changed:
                self._changed(key, sessions)
        else:
            self._merge(key, sessions, ts, event)
        if ts > self.stream_time:  # noqa: PLR1730  (once an event; max() costs twice as much)
            self.stream_time = ts
        if self.stream_time >= self._timers.next_ms:
            self._close_due(self.stream_time)

    @property
    def next_close_ms(self) -> int:
        """The stream time at which a session may close, at the earliest."""
        return self._timers.next_ms

    def advance(self, time_ms: int) -> None:
        """Move stream time on without an event, and close what is due."""
        self.stream_time = max(self.stream_time, time_ms)
        if self.stream_time >= self._timers.next_ms:
            self._close_due(self.stream_time)

    def _changed(self, key: Any, sessions: _Live) -> None:
        """Have them written with the next commit, and find out whether there is only one."""
        if not sessions.changed:
            sessions.changed = True
            self._dirty[key] = sessions
        sessions.only = sessions[0] if len(sessions) == 1 and self._silent else None

    def _is_late(self) -> None:
        self.late += 1
        if self._on_late is not None:
            self._on_late()

    def _load(self, key: Any) -> _Live:
        raw = None if self._complete else self._store.get(self.family, self._key.encode(key))
        sessions = self._live[key] = self._decode(raw)
        return sessions

    def _decode(self, raw: bytes | None) -> _Live:
        if raw is None:
            return _Live()
        sessions = _Live(self._codec.decode(raw), stored=True)
        if len(sessions) > 1:  # stores of before kept them in the order of their last changes
            sessions.sort(key=_START)
        elif sessions and self._silent:
            sessions.only = sessions[0]
        return sessions

    def load_many(self, keys: list[Any]) -> None:
        """Bring the sessions of ``keys`` into the overlay with one multi-get."""
        if self._complete:
            return
        live = self._live
        missing = [key for key in dict.fromkeys(keys) if key not in live]
        if missing:
            encode = self._key.encode
            found = self._store.get_many(self.family, [encode(key) for key in missing])
            for key, raw in zip(missing, found, strict=True):
                live[key] = self._decode(raw)

    def _merge(self, key: Any, sessions: _Live, ts: int, event: Any) -> None:
        """Do what :meth:`update` does for one open session, for any case."""
        if not sessions:  # the usual one
            if ts < self.stream_time - self._close_after:
                self._is_late()
                return
            sessions.append(Session(ts, ts, self._reduce(self._aggregate.initial(), event)))
            self._changed(key, sessions)
            self._timers.set(ts + self._close_after + 1, self._key.encode(key))
            if not self._silent:
                assert self._emit is not None
                self._emit(key, ts, ts, sessions[0].value, ts)
            return
        place = joined_by(sessions, ts, self._gap_ms)
        joined = sessions[place]
        start = min(ts, joined[0].start) if joined else ts
        end = max(ts, joined[-1].end) if joined else ts
        if end < self.stream_time - self._close_after:
            self._is_late()
            return
        if joined and (start, end) != (ts, ts) and self._emission == "updates":
            assert self._emit is not None
            for session in joined:
                self._emit(key, session.start, session.end, None, session.end)
        value = joined[0].value if joined else self._aggregate.initial()
        for session in joined[1:]:
            assert self._aggregate.merge is not None, f"table {self.family} has no merge function"
            value = self._aggregate.merge(value, session.value)
        value = self._reduce(value, event)
        sessions[place] = [Session(start, end, value)]
        self._changed(key, sessions)
        if not joined:  # else a timer is there already; it sets itself anew when it fires
            self._timers.set(end + self._close_after + 1, self._key.encode(key))
        if self._emission == "updates":
            assert self._emit is not None
            self._emit(key, start, end, value, end)

    def _close_due(self, now: int) -> None:
        """Close the sessions that ``now`` has overtaken, by (end, start, key); set timers anew."""
        closed: list[tuple[int, int, bytes, Any, Any]] = []
        keep_from = now - self._close_after
        while self._timers.next_ms <= now:
            for raw_key in self._timers.due(now):
                key = self._key.decode(raw_key)
                sessions = self._live.get(key)
                if sessions is None:
                    sessions = self._load(key)
                if len(sessions) == 1 and sessions[0].end >= keep_from:  # it has gone on
                    self._timers.set(sessions[0].end + self._close_after + 1, raw_key)
                    continue
                over = bisect_left(sessions, keep_from, key=_END)
                if over < len(sessions):
                    self._timers.set(sessions[over].end + self._close_after + 1, raw_key)
                if over:
                    gone = sessions[:over]
                    closed.extend((s.end, s.start, raw_key, key, s.value) for s in gone)
                    del sessions[:over]
                    self._changed(key, sessions)
        if closed and self._emission == "final":
            assert self._emit is not None
            closed.sort(key=lambda row: row[:3])
            for end, start, _, key, value in closed:
                self._emit(key, start, end, value, end)

    def close_all(self) -> None:
        """Close every session now: the input has ended."""
        self._close_due(NEVER - 1)

    def get(self, key: Any) -> list[Session]:
        """Return the live sessions of ``key``, oldest first."""
        sessions = self._live.get(key)
        if sessions is None:
            sessions = self._load(key)
        return list(sessions)

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end and value of every live session, by (key, start)."""
        encode = self._key.encode
        rows = {raw: self._key.decode(raw) for raw, _ in self._store.scan(self.family)}
        rows |= {encode(key): key for key in self._live}
        return [
            (rows[raw], s.start, s.end, s.value)
            for raw in sorted(rows)
            for s in self.get(rows[raw])
        ]

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode_key, encode = self._key.encode, self._codec.encode
        changes: list[Change] = []
        for key, sessions in self._dirty.items():
            sessions.changed = False
            if sessions or sessions.stored:  # else they came and went between two commits
                changes.append((encode_key(key), encode(sessions) if sessions else None))
                sessions.stored = bool(sessions)
        self._dirty = {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut(changes, {self.family: changes, TIMERS: self._timers.cut()})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return len(self._live) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._timers.committed()
        for key in self.surplus(self._live, self._dirty):
            self._complete = False
            del self._live[key]


def restored(
    family: str, changes: list[Change], codec: Codec[list[Session]], gap: Gap
) -> dict[str, list[Change]]:
    """Return what a store must hold for these changelog records: them, and their timers."""
    after = gap.gap_ms + gap.grace_ms + 1
    decode = codec.decode
    timers: list[tuple[int, bytes]] = []
    for raw_key, raw in changes:
        if raw is not None:
            sessions = decode(raw)
            end = sessions[0].end if len(sessions) == 1 else min(each.end for each in sessions)
            timers.append((end + after, raw_key))
    return {family: changes, TIMERS: timer_rows(family, timers)}


def sessions_codec(value_type: Any) -> Codec[list[Session]]:
    """Return the codec of a key's sessions, whose values are of ``value_type``."""
    if value_type is None:
        return value_codec(list[Session])
    typed = msgspec.defstruct(
        "TypedSession", [("start", int), ("end", int), ("value", value_type)], bases=(Session,),
        array_like=True,
    )  # fmt: skip
    return value_codec(list[typed])  # type: ignore[valid-type]
