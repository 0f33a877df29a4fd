"""A foreign-key join of two tables, inner or left, as Kafka Streams 4.3.1 does it (KIP-213).

A row of the left table names the right row it belongs to by a foreign key, so the two lie in
different partitions. Where the left row is (:class:`LeftPartition`), each change of it goes out as
a :class:`Subscription`, keyed by the foreign key. Where the right row is (:class:`RightPartition`),
subscriptions are kept by (foreign key, left key); each one, and each change of the right row, is
answered. An :class:`Answer` comes back keyed by the left key and counts only if it is of the
version that the left row has by then: so nothing old can overtake what is new.

Two things are done otherwise, so that the output always ends as the join of both tables. A version
is a number and not a hash of the value: a row that comes back to an old value would take old
answers for new ones. And the left side knows whether a row of it is shown, so an answer "there is
no right row" that was dropped for its version is asked for again, and no pair stays behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tables.codec import value_codec
from tables.operator import Result
from tables.table import Cut, Overlay, entry_bytes
from tables.window import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tables.codec import Codec
    from tables.store import Change, Store

How = Literal["inner", "left"]

NOTHING, IF_THERE, ALWAYS = range(3)
"""What a subscription wants back: no answer; one if there is a right row; one in any case."""

GONE = 0
"""The version of a left row that does not exist."""

LEFT = b"l"
COUNT = b"c"
"""First bytes of keys in the left side's store: a row, and how many versions there have been."""

RIGHT = b"r"
SUBSCRIBED = b"s"
"""First bytes of keys in the right side's store."""
LENGTH_BYTES = 4
CHUNK = 10_000


class Subscription(msgspec.Struct, array_like=True, gc=False):
    """What the left side tells the right one.

    Attributes:
        key: the left row's.
        version: of the left row, to be sent back with each answer.
        wants: see NOTHING.
        ends: the row does not belong there any more; a wanted answer says so.
        partition: where the left row is.
    """

    key: bytes
    version: int
    wants: int
    ends: bool
    partition: int


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What the right side says of a left row: its right value as the topic has it, or None."""

    version: int
    right: bytes | None


class LeftRow(msgspec.Struct, array_like=True, gc=False):
    """A row of the left side as it is stored.

    Attributes:
        value: as its topic has it; None: the row has gone, and that is still to be told.
        foreign_key: raw; None: it belongs to no right row.
        shown: of an inner join: the last that came out of it is a pair.
    """

    value: bytes | None
    version: int
    foreign_key: bytes | None
    shown: bool


LEFT_ROW: Codec[LeftRow] = value_codec(LeftRow)
RIGHT_ROW: Codec[tuple[bytes, int]] = value_codec(tuple[bytes, int])
SUBSCRIBER: Codec[tuple[int, int]] = value_codec(tuple[int, int])
NUMBER: Codec[int] = value_codec(int)
NO_ROW = LeftRow(None, GONE, None, shown=False)


class LeftPartition(Overlay):
    """The left side: rows by key. Side 0 are its updates, side 1 the answers.

    Args:
        foreign_key: takes a left value, returns the raw foreign key, or None.
        send: takes foreign key, left key, version, what is wanted, whether it ends, time (ms).
    """

    __slots__ = (
        "_count", "_counted", "_dirty", "_foreign_key", "_inner", "_left", "_right", "_rows",
        "_send", "_stored", "stream_time",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        how: How,
        codecs: tuple[Codec[Any], Codec[Any]],
        foreign_key: Callable[[Any], bytes | None],
        send: Callable[[bytes, bytes, int, int, bool, int], None],
        cache_entries: int = 200_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self.stream_time = NO_TIME
        self._inner = how == "inner"
        self._left, self._right = codecs
        self._foreign_key = foreign_key
        self._send = send
        self._rows: dict[bytes, LeftRow] = {}
        self._stored: set[bytes] = set()  # of those: the store has it, or will
        self._dirty: dict[bytes, None] = {}
        raw = store.get(family, COUNT)
        self._count = 0 if raw is None else NUMBER.decode(raw)  # the last version given out
        self._counted = False  # since the last cut

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Take an update of the left side, or an answer; return the row that comes of it."""
        if key is None:
            return ()
        if ts > self.stream_time:  # noqa: PLR1730  (once an event; max() costs twice as much)
            self.stream_time = ts
        return self._answered(key, ts, value) if side else self._updated(key, ts, value)

    def _updated(self, key: bytes, ts: int, value: Any) -> Sequence[Result]:
        foreign_key = None if value is None else self._foreign_key(value)  # may raise: comes first
        was = self._rows.get(key) or self._load(key)
        if value is None and was.value is None:
            return ()
        raw = None if value is None else self._left.encode(value)
        version = GONE if raw is None else self._next_version()
        before = was.foreign_key
        shown = was.shown
        moved = before is not None and before != foreign_key
        rows: Sequence[Result] = ()
        if foreign_key is not None:
            if moved:
                self._send(before, key, version, NOTHING, True, ts)  # type: ignore[arg-type]  # noqa: FBT003
            wants = ALWAYS if moved or shown or not self._inner else IF_THERE
            self._send(foreign_key, key, version, wants, False, ts)  # noqa: FBT003
        elif moved:
            wants = ALWAYS if self._inner else NOTHING
            self._send(before, key, version, wants, True, ts)  # type: ignore[arg-type]  # noqa: FBT003
        if foreign_key is None and not self._inner:
            rows = (Result(key, ts, None if value is None else (value, None)),)
        elif foreign_key is None and shown and not moved:  # the answer that said so was dropped
            rows = (Result(key, ts, None),)
            shown = False
        self._set(key, LeftRow(raw, version, foreign_key, shown))
        return rows

    def _next_version(self) -> int:
        self._counted = True
        self._count += 1
        return self._count

    def _answered(self, key: bytes, ts: int, answer: Answer) -> Sequence[Result]:
        row = self._rows.get(key) or self._load(key)
        if answer.version != row.version:
            return ()
        pair = None
        if row.value is not None and (answer.right is not None or not self._inner):
            right = None if answer.right is None else self._right.decode(answer.right)
            pair = (self._left.decode(row.value), right)
        if self._inner and row.shown is not (pair is not None):
            self._set(key, LeftRow(row.value, row.version, row.foreign_key, pair is not None))
        return (Result(key, ts, pair),)

    def _set(self, key: bytes, row: LeftRow) -> None:
        self._rows[key] = row
        self._dirty[key] = None

    def _load(self, key: bytes) -> LeftRow:
        raw = self._store.get(self.family, LEFT + key)
        if raw is None:
            row = NO_ROW
        else:
            row = LEFT_ROW.decode(raw)
            self._stored.add(key)
        self._rows[key] = row
        return row

    def close_all(self) -> Sequence[Result]:
        """Return nothing: a join of tables waits for nothing."""
        return ()

    def items(self) -> list[Any]:
        """Return (raw key, left value) of every row of the left side."""
        stored = self._store.scan(self.family, LEFT, after(LEFT))
        rows = {raw_key[1:]: LEFT_ROW.decode(raw) for raw_key, raw in stored}
        rows |= self._rows
        decode = self._left.decode
        values = ((key, rows[key].value) for key in sorted(rows))
        return [(key, decode(value)) for key, value in values if value is not None]

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        changes: list[Change] = []
        for key in self._dirty:
            row = self._rows[key]
            if row.value is not None or row.shown:
                changes.append((LEFT + key, LEFT_ROW.encode(row)))
                self._stored.add(key)
            elif key in self._stored:  # else it came and went between two commits
                changes.append((LEFT + key, None))
                self._stored.discard(key)
        self._dirty = {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        if self._counted:
            self._counted = False
            changes.append((COUNT, NUMBER.encode(self._count)))
        return Cut(changes, {self.family: changes})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return len(self._rows) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        for key in self.surplus(self._rows, self._dirty):
            del self._rows[key]
            self._stored.discard(key)


class RightPartition(Overlay):
    """The right side: rows by foreign key, and who has subscribed to each.

    Subscriptions are written without being read, and read as one range of the store when their
    right row changes: none is kept in memory once it is committed.
    """

    __slots__ = (
        "_chunk", "_dirty", "_flying", "_pending", "_rows", "_writes",
    )  # fmt: skip

    def __init__(
        self, family: str, store: Store, *, cache_entries: int = 200_000, chunk: int = CHUNK
    ) -> None:
        super().__init__(family, store, cache_entries)
        self._chunk = chunk  # so many subscriptions are read at a time
        self._rows: dict[bytes, tuple[bytes, int] | None] = {}
        self._dirty: dict[bytes, None] = {}
        self._pending: dict[bytes, dict[bytes, bytes | None]] = {}  # foreign key -> left key
        self._flying: dict[bytes, dict[bytes, bytes | None]] = {}
        self._writes = 0

    def subscribe(
        self, foreign_key: bytes, wish: Subscription, ts: int
    ) -> tuple[Answer, int] | None:
        """Keep or end a subscription; return the answer and its time, if one is wanted."""
        row = self._rows.get(foreign_key)
        if row is None and foreign_key not in self._rows:
            row = self._load(foreign_key)
        kept = None if wish.ends else SUBSCRIBER.encode((wish.version, wish.partition))
        self._pending.setdefault(foreign_key, {})[wish.key] = kept
        self._writes += 1
        if wish.wants == NOTHING or (wish.wants == IF_THERE and row is None):
            return None
        if row is None:
            return Answer(wish.version, None), ts
        return Answer(wish.version, None if wish.ends else row[0]), max(ts, row[1])

    def update(
        self, foreign_key: bytes, value: bytes | None, ts: int
    ) -> Iterator[tuple[bytes, int, Answer]]:
        """Set or delete a right row; yield left key, its partition, and the answer it gets."""
        self._rows[foreign_key] = None if value is None else (value, ts)
        self._dirty[foreign_key] = None
        for key, raw in self._subscribers(foreign_key):
            version, partition = SUBSCRIBER.decode(raw)
            yield key, partition, Answer(version, value)

    def _load(self, foreign_key: bytes) -> tuple[bytes, int] | None:
        raw = self._store.get(self.family, RIGHT + foreign_key)
        row = self._rows[foreign_key] = None if raw is None else RIGHT_ROW.decode(raw)
        return row

    def _subscribers(self, foreign_key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield who has subscribed to a right row, in the order of their keys."""
        changed = {
            **self._flying.get(foreign_key, {}),
            **self._pending.get(foreign_key, {}),
        }
        start = prefix = prefix_of(foreign_key)
        end, skip = after(prefix), len(prefix)
        added = sorted((key, raw) for key, raw in changed.items() if raw is not None)
        place = 0
        while True:
            rows = self._store.scan(self.family, start, end, self._chunk)
            found = [(key[skip:], raw) for key, raw in rows if key[skip:] not in changed]
            if len(rows) < self._chunk:
                yield from sorted(found + added[place:])
                return
            start = rows[-1][0] + b"\0"
            stop = place
            while stop < len(added) and added[stop][0] < start[skip:]:
                stop += 1
            yield from sorted(found + added[place:stop])
            place = stop

    def items(self) -> list[Any]:
        """Return (foreign key, left key) of every subscription."""
        end = after(SUBSCRIBED)
        keys = {_parts(key) for key, _ in self._store.scan(self.family, SUBSCRIBED, end)}
        for changes in (self._flying, self._pending):
            for foreign_key, subscribers in changes.items():
                for key, raw in subscribers.items():
                    (keys.discard if raw is None else keys.add)((foreign_key, key))
        return sorted(keys)

    def cut(self) -> Cut:
        """Return what changed since the last cut, for changelog and store alike."""
        changes: list[Change] = []
        for foreign_key in self._dirty:
            row = self._rows[foreign_key]
            changes.append((RIGHT + foreign_key, None if row is None else RIGHT_ROW.encode(row)))
        for foreign_key, subscribers in self._pending.items():
            prefix = prefix_of(foreign_key)
            changes += [(prefix + key, raw) for key, raw in subscribers.items()]
        self._flying, self._pending = self._pending, {}
        self._dirty = {}
        self._writes = 0
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut(changes, {self.family: changes})

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return (len(self._rows) + self._writes) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return (len(self._dirty) + self._writes) * self.entry_bytes

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._flying = {}
        for key in self.surplus(self._rows, self._dirty):
            del self._rows[key]


def prefix_of(foreign_key: bytes) -> bytes:
    """Return what the keys of a right row's subscriptions begin with, and no others."""
    return SUBSCRIBED + len(foreign_key).to_bytes(LENGTH_BYTES, "big") + foreign_key


def _parts(key: bytes) -> tuple[bytes, bytes]:
    """Return the foreign key and the left key of a subscription's key."""
    begin = len(SUBSCRIBED) + LENGTH_BYTES
    end = begin + int.from_bytes(key[len(SUBSCRIBED) : begin], "big")
    return key[begin:end], key[end:]


def after(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with a prefix (whose first byte is not 255)."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1])
