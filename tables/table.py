"""One partition of a keyed table: a decoded overlay over the store.

The overlay is cache and write buffer in one. A key that is touched a thousand times between two
commits is decoded once, encoded once and logged once. The store only ever sees committed data:
:meth:`KeyedPartition.cut` hands out the changes for the changelog and, once Kafka has them, the
same bytes go to the store, and :meth:`KeyedPartition.committed` says so. In between they are
*flying*: in the overlay, not in the store. If the commit fails, the overlay is thrown away whole.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from tables.codec import Codec
    from tables.store import Change, Entry, Store


K = TypeVar("K")


class Cut(NamedTuple):
    """What one commit takes from a partition, for Kafka and for the store."""

    changelog: list[Change]
    store: Mapping[str, Sequence[Entry]]


ENTRY_BYTES = 300
"""What Python's objects of an entry take beside its value."""
DECODED = 3
"""A value takes so much more than its bytes."""
SAMPLE = 16


def entry_bytes(changes: list[Change], before: int) -> int:
    """Return about how much memory a decoded entry takes, going by the first of a cut."""
    some = changes[:SAMPLE]
    if not some:
        return before
    raw = sum(len(key) + len(value or b"") for key, value in some)
    return ENTRY_BYTES + DECODED * raw // len(some)


ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "ABSENT", "__slots__": ()})()
"""In the overlay: this key is known not to exist."""


class Overlay:
    """What the partitions of all kinds have in common: so much of them may be decoded in memory.

    Attributes:
        family: the column family, which is the table's name.
        cache_entries: decoded entries kept after a commit; changed ones always are.
        bytes_max: how much memory they may take, about.
        entry_bytes: about how much memory one takes.
    """

    __slots__ = ("_store", "bytes_max", "cache_entries", "entry_bytes", "family")

    def __init__(self, family: str, store: Store, cache_entries: int) -> None:
        self.family = family
        self.cache_entries = cache_entries
        self.bytes_max = 1 << 62
        self.entry_bytes = ENTRY_BYTES
        self._store = store

    def room(self) -> int:
        """Return how many entries may stay in memory."""
        return min(self.cache_entries, self.bytes_max // self.entry_bytes)

    def surplus(self, entries: Mapping[K, Any], dirty: Container[K]) -> list[K]:
        """Return the keys of entries that must leave memory: old ones, and some more than too many.

        Those that have changed stay.
        """
        most = self.room()
        excess = len(entries) - most
        if excess <= 0:
            return []
        return [key for key in islice(entries, excess + most // 4) if key not in dirty]


class KeyedPartition(Overlay):
    """Keys to values, for one partition. Not safe for threads; never awaits.

    Args:
        family: the column family, which is the table's name.
        store: where committed entries are.
        key: codec of the keys.
        value: codec of the values.
        cache_entries: decoded entries kept after a commit; dirty ones are always kept.
    """

    __slots__ = (
        "_cache", "_dirty", "_flying", "_key", "_value",
    )  # fmt: skip

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        key: Codec[Any],
        value: Codec[Any],
        cache_entries: int = 100_000,
    ) -> None:
        super().__init__(family, store, cache_entries)
        self._key = key
        self._value = value
        self._cache: dict[Any, Any] = {}
        self._dirty: dict[Any, bytes | None] = {}  # key -> its bytes, where they are known already
        self._flying: dict[Any, bytes | None] = {}  # cut, but not yet in the store

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default``."""
        try:
            value = self._cache[key]
        except KeyError:
            value = self._load(key)
        return default if value is ABSENT else value

    def _load(self, key: Any) -> Any:
        raw = self._store.get(self.family, self._key.encode(key))
        value = self._cache[key] = ABSENT if raw is None else self._value.decode(raw)
        return value

    def load_many(self, keys: Iterable[Any]) -> None:
        """Bring the entries of ``keys`` into the overlay with one multi-get."""
        cache = self._cache
        missing = [key for key in dict.fromkeys(keys) if key not in cache]
        if not missing:
            return
        encode, decode = self._key.encode, self._value.decode
        found = self._store.get_many(self.family, [encode(key) for key in missing])
        for key, raw in zip(missing, found, strict=True):
            cache[key] = ABSENT if raw is None else decode(raw)

    def put(self, key: Any, value: Any) -> None:
        """Set ``key`` to ``value``; written with the next commit."""
        self._cache[key] = value
        self._dirty[key] = None

    def put_raw(self, key: Any, value: Any, raw: bytes) -> None:
        """Like :meth:`put`, for a value whose bytes are known and need no encoding."""
        self._cache[key] = value
        self._dirty[key] = raw

    def follow(
        self, keys: Iterable[bytes | None], values: Iterable[Any], raws: Any, times: Iterable[int]
    ) -> None:
        """Apply records of the topic that this table is; one without a key is dropped.

        As Kafka Streams does. Their times (ms) play no part: the last to come is what counts.
        """
        decode_key = self._key.decode
        for key, value, raw in zip(keys, values, raws, strict=True):
            if key is not None and raw is None:
                self.delete(decode_key(key))
            elif key is not None:
                self.put_raw(decode_key(key), value, raw)

    def delete(self, key: Any) -> None:
        """Remove ``key``; a tombstone goes out with the next commit."""
        self._cache[key] = ABSENT
        self._dirty[key] = None

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield every entry, uncommitted changes included, in the order of the keys' bytes."""
        encode = self._key.encode
        rows: dict[bytes, Any] = dict(self._store.scan(self.family))
        changed = {encode(key): self._cache[key] for key in (*self._flying, *self._dirty)}
        for raw_key in sorted({*rows, *changed}):
            value = (
                changed.get(raw_key) if raw_key in changed else self._value.decode(rows[raw_key])
            )
            if value is not ABSENT:
                yield self._key.decode(raw_key), value

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        return len(self._cache) * self.entry_bytes

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        return len(self._dirty) * self.entry_bytes

    def cut(self) -> Cut:
        """Return what changed since the last cut, encoded once for changelog and store alike."""
        encode_key, encode_value = self._key.encode, self._value.encode
        cache = self._cache
        changes: list[Change] = []
        for key, raw in self._dirty.items():
            if raw is None:
                value = cache[key]
                raw = None if value is ABSENT else encode_value(value)  # noqa: PLW2901
            changes.append((encode_key(key), raw))
        self._flying, self._dirty = self._dirty, {}
        self.entry_bytes = entry_bytes(changes, self.entry_bytes)
        return Cut(changes, {self.family: changes})

    def committed(self) -> None:
        """The last cut is in the store: bound the overlay again."""
        self._flying = {}
        for key in self.surplus(self._cache, self._dirty):
            del self._cache[key]
