"""Tables with a value per key and window of a number of events, as agents use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.table import Kind, TableHandle, Window, emitter_to
from tables.counted import Counted, CountedPartition
from tables.window import Aggregate

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.table import Emit, Table
    from engine.topic import Topic
    from tables.store import Store
    from tables.window import Emission


def counted(table: Table[Any, Any], size: int, step: int | None, **options: Any) -> CountedTable:
    """Return a table with windows of ``size`` events that begin every ``step`` events."""
    return CountedTable(table, Counted(size, size if step is None else step), **options)


class CountedTable(TableHandle):
    """A value per key and window of ``size`` of its events; a window begins every ``step`` events.

    Args:
        reduce: (value, event) -> value; None: the table's own.
        sink: the topic for results. Their window is from the smallest to the largest event time in
            it (ms, both inclusive), and the largest is the record's time.
        emit: ``final`` (once, when a window is full) or ``updates`` (at each change).
        into: makes the result record of (key, window, value).
    """

    kind: Kind = "counted"

    def __init__(
        self,
        table: Table[Any, Any],
        counted: Counted,
        *,
        reduce: Callable[[Any, Any], Any] | None = None,
        sink: Topic | None = None,
        emit: Emission = "final",
        into: Callable[[Any, Window, Any], Any] | None = None,
    ) -> None:
        super().__init__(
            table.name,
            key_type=table.key_type,
            value_type=table.value_type,
            emitter=emitter_to(sink, emit, into, table.value_type),
            cache_entries=table.cache_entries,
        )
        reduce = reduce or table.reduce
        if table.source is not None:
            raise ConfigError(f"table {table.name!r} is a topic and cannot be windowed")
        if not 0 < counted.step <= counted.size:
            raise ConfigError(f"table {table.name!r}: a window by count needs 0 < step <= size")
        if reduce is None:
            raise ConfigError(
                f"table {table.name!r}: windows by count need reduce= or value_type=Aggregates"
            )
        self.counted = counted
        self.aggregate = Aggregate(
            table.default or (lambda: None), reduce, value_type=table.value_type
        )

    def open(self, store: Store, emit: Emit | None) -> CountedPartition:
        """Return this table's partition on a task's store."""
        return CountedPartition(
            self.name,
            store,
            counted=self.counted,
            key=self.key,
            aggregate=self.aggregate,
            emission=self.emitter.emission if self.emitter else None,
            emit=emit,
            cache_entries=self.cache_entries,
        )

    def update(self, key: Any, event: Any) -> None:
        """Reduce ``event`` into the open windows of its key; without a key it is dropped."""
        if key is not None:
            partition, now = self._here_now()
            partition.update(key, now, event)

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end (ms, of the events so far) and value of this task's windows."""
        rows: list[tuple[Any, int, int, Any]] = self._here().items()
        return rows
