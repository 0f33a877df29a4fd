"""The same store in a dict: what the Driver uses, and the oracle for the real one in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tables.store import Entry


class MemoryStore:
    """A :class:`tables.store.Store` that lives as long as the object does."""

    def __init__(self) -> None:
        self._families: dict[str, dict[bytes, bytes]] = {}

    def get(self, family: str, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None."""
        return self._families.get(family, {}).get(key)

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of ``keys``, in their order, None for an absent one."""
        rows = self._families.get(family, {})
        return [rows.get(key) for key in keys]

    def scan(
        self, family: str, start: bytes = b"", end: bytes | None = None, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return the entries with start <= key < end in byte order, the first ``limit`` at most."""
        rows = self._families.get(family, {})
        keys = sorted(key for key in rows if key >= start and (end is None or key < end))
        return [(key, rows[key]) for key in keys[:limit]]

    def write(self, changes: Mapping[str, Iterable[Entry]]) -> None:
        """Apply all changes of all families."""
        for family, entries in changes.items():
            rows = self._families.setdefault(family, {})
            for key, value in entries:
                if value is None:
                    rows.pop(key, None)
                elif isinstance(value, bytes):
                    rows[key] = value
                else:
                    for gone in [each for each in rows if key <= each < value.end]:
                        del rows[gone]

    def clear(self) -> None:
        """Forget everything."""
        self._families.clear()

    def close(self) -> None:
        """Keep the rows: the Driver opens the same store again after a crash."""
