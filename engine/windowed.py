"""Tables with a value per key and window, or per key and session, as agents use them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import ConfigError
from engine.table import Emitter, Kind, Seconds, TableHandle, Window
from tables.session import Gap, Session, SessionPartition, restored, sessions_codec
from tables.window import Aggregate, WindowPartition, Windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.table import Emit, Table
    from engine.topic import Topic
    from tables.store import Change, Store
    from tables.window import Emission


def milliseconds(seconds: Seconds) -> int:
    """Return seconds, or a timedelta as Faust takes it, in ms."""
    total = getattr(seconds, "total_seconds", None)
    return round(1000 * (total() if total else seconds))


def hopping(
    table: Table[Any, Any], size: Seconds, step: Seconds, grace: Seconds, **options: Any
) -> WindowedTable:
    """Return a table with windows of ``size`` seconds that begin every ``step`` seconds."""
    windows = Windows(milliseconds(size), milliseconds(step), milliseconds(grace))
    return WindowedTable(table, windows, **options)


class WindowedTable(TableHandle):
    """A value per key and window. ``counts[key] += 1`` changes the event's own window(s).

    Args:
        reduce: (value, event) -> value, for :meth:`update`.
        sink: the topic for results.
        emit: ``final`` (once, when a window has closed) or ``updates`` (at each change).
        into: makes the result record of (key, window, value).
    """

    kind: Kind = "window"

    def __init__(  # noqa: PLR0913
        self,
        table: Table[Any, Any],
        windows: Windows,
        *,
        reduce: Callable[[Any, Any], Any] | None = None,
        sink: Topic | None = None,
        emit: Emission = "final",
        into: Callable[[Any, Window, Any], Any] | None = None,
        expires: Any = None,
        key_index: bool = False,
    ) -> None:
        super().__init__(
            table.name,
            key_type=table.key_type,
            value_type=table.value_type,
            emitter=Emitter(sink, emit, into) if sink is not None else None,
            cache_entries=table.cache_entries,
        )
        if table.source is not None:
            raise ConfigError(f"table {table.name!r} is a topic and cannot be windowed")
        if windows.size_ms <= 0 or not 0 < windows.advance_ms <= windows.size_ms:
            raise ConfigError(f"table {table.name!r}: a window needs 0 < step <= size")
        self.windows = windows
        self.default = table.default
        self.aggregate = Aggregate(
            table.default or (lambda: None), reduce, value_type=table.value_type
        )

    def open(self, store: Store, emit: Emit | None) -> WindowPartition:
        """Return this table's partition on a task's store."""
        return WindowPartition(
            self.name,
            store,
            windows=self.windows,
            key=self.key,
            aggregate=self.aggregate,
            emission=self.emitter.emission if self.emitter else None,
            emit=emit,
            cache_entries=self.cache_entries,
        )

    def update(self, key: Any, event: Any) -> None:
        """Reduce ``event`` into the windows of its time; without a key it is dropped."""
        if key is not None:
            partition, now = self._here_now()
            partition.update(key, now, event)

    def __getitem__(self, key: Any) -> WindowSet:
        partition, now = self._here_now()
        return WindowSet(partition, key, now)

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(value) is not WindowSet:  # that is what ``table[key] += 1`` ends with
            self[key].fold(_second, value)

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end (ms) and value of this task's open windows."""
        rows: list[tuple[Any, int, int, Any]] = self._here().items()
        return rows


class WindowSet(msgspec.Struct, gc=False, eq=False):
    """One key's values in the windows of the event in hand. A Struct: one is made per event."""

    partition: WindowPartition
    key: Any
    ts: int

    def fold(self, change: Callable[[Any, Any], Any], other: Any) -> WindowSet:
        """Set the value to ``change(value, other)`` in each of the event's windows.

        Without a key nothing happens, as in Kafka Streams: not even stream time moves.
        """
        if self.key is not None:
            self.partition.fold(self.key, self.ts, change, other)
        return self

    def apply(self, change: Callable[[Any], Any]) -> WindowSet:
        """Set the value to ``change(value)`` in each of the event's windows."""
        return self.fold(lambda value, _: change(value), None)

    def current(self) -> Any:
        """Return the value in the latest window of the event's time, or the table's default."""
        return self.partition.value(self.key, self.ts)

    def now(self) -> Any:
        """Return the value in the latest window of the stream's time, or the table's default."""
        return self.partition.value(self.key, self.partition.stream_time)

    def value(self) -> Any:
        """Return what :meth:`current` does (Faust's name)."""
        return self.current()

    def __iadd__(self, other: Any) -> WindowSet:
        if self.key is not None:  # what fold does: once an event, it saves a call
            self.partition.fold(self.key, self.ts, operator.add, other)
        return self

    def __isub__(self, other: Any) -> WindowSet:
        return self.fold(operator.sub, other)

    def __imul__(self, other: Any) -> WindowSet:
        return self.fold(operator.mul, other)

    def __ior__(self, other: Any) -> WindowSet:
        return self.fold(operator.or_, other)


def _second(_: Any, value: Any) -> Any:
    return value


def _one_more(count: int, _: Any) -> int:
    return count + 1


class SessionTable(TableHandle):
    """A value per key and session: events with no gap longer than ``gap`` seconds between them.

    Args:
        grace: how many seconds after its end + gap a session still takes late events.
        initial: makes an empty value; None: ``value_type()``.
        reduce: (value, event) -> value; it may change the value in place and return it. Without
            it a session's value is the number of its events.
        merge: (value, value) -> value, when an event bridges two sessions.
        sink, emit, into: as for :class:`WindowedTable`.
    """

    kind: Kind = "session"

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        *,
        gap: Seconds,
        grace: Seconds = 0,
        reduce: Callable[[Any, Any], Any] | None = None,
        merge: Callable[[Any, Any], Any] | None = None,
        initial: Callable[[], Any] | None = None,
        sink: Topic | None = None,
        emit: Emission = "final",
        into: Callable[[Any, Window, Any], Any] | None = None,
        **options: Any,
    ) -> None:
        emitter = Emitter(sink, emit, into) if sink is not None else None
        super().__init__(name, emitter=emitter, **options)
        if milliseconds(gap) <= 0:
            raise ConfigError(f"session table {name!r}: gap must be more than 0 seconds")
        if (reduce is None) != (merge is None):
            raise ConfigError(f"session table {name!r}: reduce= and merge= belong together")
        if reduce is None or merge is None:
            reduce, merge, self.value_type = _one_more, operator.add, int
        initial = initial or self.value_type
        if initial is None:
            raise ConfigError(f"session table {name!r} needs value_type= or initial=")
        self.gap = Gap(milliseconds(gap), milliseconds(grace))
        self._codec = sessions_codec(self.value_type)
        self.aggregate = Aggregate(initial, reduce, merge, self.value_type)

    def open(self, store: Store, emit: Emit | None) -> SessionPartition:
        """Return this table's partition on a task's store."""
        return SessionPartition(
            self.name,
            store,
            gap=self.gap,
            key=self.key,
            aggregate=self.aggregate,
            emission=self.emitter.emission if self.emitter else None,
            emit=emit,
            cache_entries=self.cache_entries,
        )

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return restored(self.name, changes, self._codec, self.gap)

    def update(self, key: Any, event: Any) -> None:
        """Reduce ``event`` into the session of its time; without a key it is dropped."""
        if key is not None:
            partition, now = self._here_now()
            partition.update(key, now, event)

    def get(self, key: Any) -> list[Session]:
        """Return the live sessions of ``key``, oldest first."""
        sessions: list[Session] = self._here().get(key)
        return sessions

    def items(self) -> list[tuple[Any, int, int, Any]]:
        """Return key, start, end (ms) and value of this task's live sessions."""
        rows: list[tuple[Any, int, int, Any]] = self._here().items()
        return rows
