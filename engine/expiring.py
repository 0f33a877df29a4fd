"""A keyed table whose entries expire, as agents use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.table import Seconds, Table
from engine.windowed import milliseconds
from tables.ttl import ExpiringPartition, restored, stamped_codec

if TYPE_CHECKING:
    from engine.table import Emit
    from tables.store import Change, Store


class ExpiringTable(Table[Any, Any]):
    """A :class:`engine.table.Table` that forgets a key ``ttl`` seconds after its last write.

    In event time: of the event that wrote it, and of the latest event that any use of the table was
    for. What is not changed is not written, so a read does not make an entry live longer.

    Args:
        ttl: seconds.
        options: see :class:`engine.table.Table`.
    """

    def __init__(self, name: str, *, ttl: Seconds, **options: Any) -> None:
        super().__init__(name, **options)
        self.ttl_ms = milliseconds(ttl)
        self._codec = stamped_codec(self.value_type)
        if self.source is not None:
            raise ConfigError(
                f"table {name!r} is the topic {self.source.name}: let the topic's own records "
                "expire, with tombstones"
            )
        if self.ttl_ms <= 0:
            raise ConfigError(f"table {name!r}: ttl must be more than 0 seconds")

    def open(self, store: Store, emit: Emit | None) -> ExpiringPartition:
        """Return this table's partition on a task's store."""
        return ExpiringPartition(
            self.name,
            store,
            ttl_ms=self.ttl_ms,
            value_type=self.value_type,
            key=self.key,
            cache_entries=self.cache_entries,
        )

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return restored(self.name, changes, self._codec, self.ttl_ms)

    def _here(self) -> Any:
        partition, now = self._here_now()
        partition.at(now)
        return partition

    def hopping(self, size: Seconds, step: Seconds, **options: Any) -> Any:
        """Refuse: windows end by themselves."""
        raise ConfigError(f"table {self.name!r}: windows end by themselves, leave ttl= out")

    def counted(self, size: int, step: int | None = None, **options: Any) -> Any:
        """Refuse: see :meth:`hopping`."""
        raise ConfigError(f"table {self.name!r}: a table with ttl= has no windows")
