"""A whole table, read-only: what every task of a worker looks things up in.

Nothing is decided here and nothing waits for a commit: records that Kafka has committed go straight
to the store, and what is decoded is only a cache.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tables.codec import Codec
    from tables.store import Change, Store


class GlobalPartition:
    """Keys to values, for a whole topic. Not safe for threads; never awaits.

    Args:
        family: the column family, which is the table's name.
        cache_entries: so many decoded entries are kept, at most.
    """

    __slots__ = ("_cache", "_key", "_store", "_value", "cache_entries", "family")

    def __init__(
        self,
        family: str,
        store: Store,
        *,
        key: Codec[Any],
        value: Codec[Any],
        cache_entries: int = 100_000,
    ) -> None:
        self.family = family
        self.cache_entries = cache_entries
        self._store = store
        self._key = key
        self._value = value
        self._cache: dict[bytes, Any] = {}  # raw key -> value; None: there is none

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default``."""
        raw_key = self._key.encode(key)
        try:
            value = self._cache[raw_key]
        except KeyError:
            value = self._load(raw_key)
        return default if value is None else value

    def _load(self, raw_key: bytes) -> Any:
        raw = self._store.get(self.family, raw_key)
        value = None if raw is None else self._value.decode(raw)
        if len(self._cache) >= self.cache_entries:
            for old in list(islice(self._cache, 1 + self.cache_entries // 4)):
                del self._cache[old]
        self._cache[raw_key] = value
        return value

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield every entry, in the order of the keys' bytes. Reads the whole table."""
        for raw_key, raw in self._store.scan(self.family):
            yield self._key.decode(raw_key), self._value.decode(raw)

    def apply(self, changes: Sequence[Change], notes: Mapping[str, Sequence[Change]]) -> None:
        """Take changes over, and what the store is to note with them."""
        self._store.write({self.family: changes, **notes})
        for raw_key, _ in changes:
            self._cache.pop(raw_key, None)
