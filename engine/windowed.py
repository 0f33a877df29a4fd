"""Tables with a value per key and window, or per key and session, as agents use them."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any

import msgspec

from engine.aggregate import is_aggregates
from engine.errors import ConfigError
from engine.results import late_writer
from engine.table import Kind, Seconds, TableHandle, Window, emitter_to
from tables.session import Gap, Session, SessionPartition, restored, sessions_codec
from tables.sliding import Sliding, SlidingPartition
from tables.sliding import restored as restored_sliding
from tables.window import Aggregate, WindowPartition, Windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.table import Emit, Table
    from engine.topic import Topic
    from tables.store import Change, Store
    from tables.window import Emission


_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)")


def milliseconds(duration: Any) -> int:
    """Return a duration in ms: seconds, a timedelta as Faust takes it, or a text like ``"30s"``.

    Raises:
        ConfigError: the text is no duration.
    """
    if isinstance(duration, str):
        found = _DURATION.fullmatch(duration)
        if found is None:
            raise ConfigError(f'{duration!r} is no duration: write "500ms", "30s", "5m"')
        return round(float(found[1]) * _UNITS[found[2]])
    total = getattr(duration, "total_seconds", None)
    seconds: float = total() if total else duration
    return round(1000 * seconds)


def patience_ms(grace: Seconds, delay: Seconds | None) -> int:
    """Return how much stream time passes between a window's end and its close, in ms.

    Without a delay a window is closed as Kafka Streams does it: stream time *s* says that an event
    at *s* may still come. A watermark (``delay``) says that none comes at or before it, as in
    Flink, so what it closes is closed 1 ms earlier than a grace of the same length would.
    """
    if delay is None:
        return milliseconds(grace)
    return milliseconds(grace) + milliseconds(delay) - 1


def hopping(
    table: Table[Any, Any],
    size: Seconds,
    step: Seconds,
    *,
    grace: Seconds,
    delay: Seconds | None = None,
    **options: Any,
) -> WindowedTable:
    """Return a table with windows of ``size`` seconds that begin every ``step`` seconds."""
    windows = Windows(milliseconds(size), milliseconds(step), patience_ms(grace, delay))
    if not 0 < windows.advance_ms <= windows.size_ms:
        raise ConfigError(f"table {table.name!r}: a window needs 0 < step <= size")
    return WindowedTable(table, windows, **options)


def sliding(
    table: Table[Any, Any],
    size: Seconds,
    *,
    grace: Seconds,
    delay: Seconds | None = None,
    **options: Any,
) -> WindowedTable:
    """Return a table with windows of ``size`` seconds that move along with the events."""
    windows = Sliding(milliseconds(size), patience_ms(grace, delay))
    if windows.size_ms <= 0:
        raise ConfigError(f"table {table.name!r}: a window needs 0 < size")
    for option in {"every", "retention"} & options.keys():
        raise ConfigError(f"table {table.name!r}: {option}= is for tumbling and hopping windows")
    return WindowedTable(table, windows, **options)


class WindowedTable(TableHandle):
    """A value per key and window. ``counts[key] += 1`` changes the event's own window(s).

    Args:
        windows: which ones there are: tumbling and hopping, or sliding.
        reduce: (value, event) -> value, for :meth:`update`; None: the table's own.
        sink: the topic for results.
        emit: ``final`` (once, when a window has closed) or ``updates`` (at each change).
        into: makes the result record of (key, window, value).
        every: with ``final``: show what the open windows hold whenever stream time passes a
            multiple of so many seconds.
        retention: for so many seconds after its close a window can be read, by ``at``.
        late: the topic for events that come too late, as they came (:attr:`late`).
        idle: without input for so many seconds, stream time moves on with the wall clock
            (:mod:`engine.idle`).
    """

    kind: Kind = "window"

    def __init__(  # noqa: PLR0913
        self,
        table: Table[Any, Any],
        windows: Windows | Sliding,
        *,
        reduce: Callable[[Any, Any], Any] | None = None,
        sink: Topic | None = None,
        emit: Emission = "final",
        into: Callable[[Any, Window, Any], Any] | None = None,
        every: Any = 0,
        retention: Any = 0,
        late: Topic | None = None,
        idle: Any = 0,
        expires: Any = None,
        key_index: bool = False,
    ) -> None:
        super().__init__(
            table.name,
            key_type=table.key_type,
            value_type=table.value_type,
            emitter=emitter_to(sink, emit, into, table.value_type),
            cache_entries=table.cache_entries,
        )
        if table.source is not None:
            raise ConfigError(f"table {table.name!r} is a topic and cannot be windowed")
        self.windows = windows
        self.every_ms = milliseconds(every)
        self.retention_ms = milliseconds(retention)
        self.late_topic = late
        self.idle_ms = milliseconds(idle)
        if self.every_ms and (sink is None or emit != "final"):
            raise ConfigError(f"table {table.name!r}: every= needs sink= and emit='final'")
        self.default = table.default
        self.aggregate = Aggregate(
            table.default or (lambda: None), reduce or table.reduce, value_type=table.value_type
        )

    def open(self, store: Store, emit: Emit | None) -> WindowPartition | SlidingPartition:
        """Return this table's partition on a task's store."""
        options: dict[str, Any] = {
            "key": self.key,
            "aggregate": self.aggregate,
            "emission": self.emitter.emission if self.emitter else None,
            "emit": emit,
            "on_late": late_writer(self),
            "cache_entries": self.cache_entries,
        }
        if isinstance(self.windows, Sliding):
            return SlidingPartition(self.name, store, windows=self.windows, **options)
        options |= {"every_ms": self.every_ms, "retention_ms": self.retention_ms}
        return WindowPartition(self.name, store, windows=self.windows, **options)

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        if isinstance(self.windows, Sliding):
            return restored_sliding(self.name, changes, self.windows)
        return super().restored(changes)

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

    partition: WindowPartition | SlidingPartition
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
        """Return the value in the latest window of the event's time, or the table's default.

        Of sliding windows it is the one that ends with the event.
        """
        return self.partition.value(self.key, self.ts)

    def now(self) -> Any:
        """Return the value in the latest window of the stream's time, or the table's default."""
        return self.partition.value(self.key, self.partition.stream_time)

    def at(self, time_ms: int) -> Any:
        """Return the value in the latest window of a time (ms), or the table's default.

        Closed windows can be read for as long as the table's ``retention`` says.
        """
        return self.partition.value(self.key, time_ms)

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
        reduce: (value, event) -> value; it may change the value in place and return it. It comes
            from ``value_type`` where that is a class of :class:`engine.aggregates.Aggregates`, as
            ``merge`` does; without either a session's value is the number of its events.
        merge: (value, value) -> value, when an event bridges two sessions.
        sink, emit, into, late, idle: as for :class:`WindowedTable`.
        delay: of the watermark, in seconds: sessions are closed by stream time less so much.
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
        delay: Seconds | None = None,
        late: Topic | None = None,
        idle: Any = 0,
        **options: Any,
    ) -> None:
        kind = options.get("value_type")
        super().__init__(name, emitter=emitter_to(sink, emit, into, kind), **options)
        if is_aggregates(kind):
            reduce, merge = reduce or kind.add, merge or kind.merge
        if milliseconds(gap) <= 0:
            raise ConfigError(f"session table {name!r}: gap must be more than 0 seconds")
        if (reduce is None) != (merge is None):
            raise ConfigError(f"session table {name!r}: reduce= and merge= belong together")
        if reduce is None or merge is None:
            reduce, merge, self.value_type = _one_more, operator.add, int
        initial = initial or self.value_type
        if initial is None:
            raise ConfigError(f"session table {name!r} needs value_type= or initial=")
        self.gap = Gap(milliseconds(gap), patience_ms(grace, delay))
        self.late_topic = late
        self.idle_ms = milliseconds(idle)
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
            on_late=late_writer(self),
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
