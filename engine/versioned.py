"""Tables that remember what they said before, as agents use them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.table import K, Table, V
from engine.windowed import milliseconds
from tables.codec import Codec, value_codec
from tables.table import ABSENT
from tables.versioned import VersionedPartition, restored

if TYPE_CHECKING:
    from engine.table import Emit, Seconds
    from engine.topic import Topic
    from tables.store import Change, Store


class VersionedTable(Table[K, V]):
    """A keyed table that can be asked what it said at some time: ``prices.get(key, at=ts)``.

    Without a time it answers as any table does, with the newest. A version holds from its event
    time on, inclusive, until the next one; a deletion is a version too. Late updates are put where
    they belong. The semantics are those of Kafka Streams' versioned stores.

    It keeps a changelog also if it is a topic: what compaction takes from the topic is history.

    Args:
        history: how far back it can be asked, in seconds before its newest update. An update that
            is older than that is dropped.
        source: the topic that this table *is*; then it is read-only. Otherwise what an agent sets
            holds from the time of the event in hand on.

    Raises:
        ConfigError: ``history`` is below 0.
    """

    def __init__(self, name: str, *, history: Seconds, **options: Any) -> None:
        super().__init__(name, **options)
        self.history_ms = milliseconds(history)
        if self.history_ms < 0:
            raise ConfigError(f"table {name!r}: history= is a number of seconds, 0 or more")

    def open(self, store: Store, emit: Emit | None) -> VersionedPartition:  # type: ignore[override]
        """Return this table's partition on a task's store."""
        value: Codec[Any] = (
            value_codec(self.value_type)
            if self.source is None
            else Codec(self.source.contract.encode, self.source.contract.decode)
        )
        return VersionedPartition(
            self.name, store, key=self.key, value=value, history_ms=self.history_ms,
            cache_entries=self.cache_entries,
        )  # fmt: skip

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return restored(self.name, changes, self.history_ms)

    def name_changelog(self, app_id: str) -> Topic | None:
        """Name the topic that the versions are logged to."""
        return self._own_changelog(app_id)

    def get(
        self, key: K, default: V | None = None, *, at: float | datetime | None = None
    ) -> V | None:
        """Return the value of ``key``, or ``default``.

        Args:
            at: when it held: seconds since the epoch, as an event's ``timestamp``, or a datetime;
                None: the newest. Before the table's history nobody knows, but for a key whose
                newest version is older.
        """
        if at is None:
            return super().get(key, default)
        seconds = at.timestamp() if isinstance(at, datetime) else at
        value = self.get_at(key, round(1000 * seconds))
        return default if value is None else value

    def get_at(self, key: K, ts: int) -> V | None:
        """Return the value that ``key`` had at ``ts`` (ms), or None."""
        value: V | None = self._here().get_at(key, ts)
        return value

    def __setitem__(self, key: K, value: V | None) -> None:
        self._writable()
        partition, now = self._here_now()
        partition.put(key, now, ABSENT if value is None else value)

    def __delitem__(self, key: K) -> None:
        if self._writable().get(key) is None:
            raise KeyError(key)
        self[key] = None

    def pop(self, key: K, default: V | None = None) -> V | None:
        """Delete ``key`` from the event's time on; return its newest value, or ``default``."""
        value: V | None = self._writable().get(key)
        if value is None:
            return default
        self[key] = None
        return value

    def hopping(self, size: Seconds, step: Seconds, **options: Any) -> Any:
        """Refuse: a window has a time of its own."""
        raise ConfigError(f"table {self.name!r} has a history and cannot be windowed")
