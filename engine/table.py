"""Tables as agents use them. The state itself is in :mod:`tables`; these are the handles.

A handle is declared once, in a module; inside an agent each call finds the partition of the task
that runs, so ``profiles.get(user)`` reads the store that the task owns. Outside of an agent there
is no partition, and the handle says so instead of returning a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from engine.aggregate import is_aggregates, result_of
from engine.context import context_for, current
from engine.contracts.contract import Contract
from engine.errors import ConfigError
from engine.topic import Topic, TopicConfig
from tables.codec import TEXT_KEYS, Codec, key_codec, value_codec
from tables.table import KeyedPartition

if TYPE_CHECKING:
    from engine.counted import CountedTable
    from engine.timers import TableTimers
    from engine.windowed import WindowedTable
    from tables.store import Change, Store
    from tables.window import Emission

K = TypeVar("K")
V = TypeVar("V")
Seconds = float | str | timedelta
"""A duration: seconds, a timedelta, or a text such as ``"30s"``; see ``milliseconds``."""
Kind = Literal["keyed", "window", "session", "counted", "operator", "timers"]


class Window(msgspec.Struct, frozen=True, gc=False):
    """A window's bounds, in ms. A Struct: one is made per result, and a NamedTuple costs thrice."""

    start: int
    end: int


class Emitter(NamedTuple):
    """Where a windowed table's results go.

    Attributes:
        topic: the topic they go to.
        emission: ``final``: once, when the window has closed; ``updates``: at each change.
        into: makes the record of (key, window, value); None sends the value itself.
    """

    topic: Topic
    emission: Emission
    into: Callable[[Any, Window, Any], Any] | None


Emit = Callable[[Any, int, int, Any, int], None]


def emitter_to(
    sink: Topic | None,
    emission: Emission,
    into: Callable[[Any, Window, Any], Any] | None,
    value_type: Any,
) -> Emitter | None:
    """Return where a table's results go; aggregates are made the sink's record by its fields."""
    if sink is None:
        return None
    if into is None and is_aggregates(value_type):
        into = result_of(value_type, sink.contract.value_type)
    return Emitter(sink, emission, into)


class TableHandle:
    """What all kinds of tables have in common: a name, codecs, and where the bytes are kept."""

    kind: Kind = "keyed"
    idle_ms = 0
    late_topic: Topic | None = None
    is_global = False
    """Whether it is the worker's, and whole, and not in parts the tasks'."""

    def __init__(
        self,
        name: str,
        *,
        key_type: Any = None,
        value_type: Any = None,
        source: Topic | None = None,
        emitter: Emitter | None = None,
        cache_entries: int = 200_000,
    ) -> None:
        if not name or not all(c.isalnum() or c in "._-" for c in name):
            raise ConfigError(f"table name {name!r}: use letters, digits, '.', '_' and '-' only")
        self.name = name
        self.key_type = key_type
        self.value_type = value_type
        self.source = source
        self.emitter = emitter
        self.cache_entries = cache_entries
        self.changelog: Topic | None = None
        self.key = key_codec(key_type)
        self.timers: TableTimers | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _here(self) -> Any:
        """Return the partition of the task that runs. Once or twice an event: no detours."""
        try:
            return current.get().tables[self.name]  # type: ignore[union-attr]
        except (AttributeError, KeyError):
            return context_for(f"table {self.name!r}").table(self.name)  # says what is wrong

    def _here_now(self) -> tuple[Any, int]:
        """Return that partition, and the event time of the event in hand (ms)."""
        try:
            context = current.get()
            return context.tables[self.name], context.run.times[context.index]  # type: ignore[union-attr]
        except (AttributeError, KeyError):
            context = context_for(f"table {self.name!r}")
            return context.table(self.name), context.time_ms()

    @property
    def late(self) -> Topic:
        """The topic of the events that came too late for it, for an agent to read.

        Raises:
            ConfigError: it was declared without one.
        """
        if self.late_topic is None:
            raise ConfigError(f"table {self.name!r} keeps no late events: declare it with late=")
        return self.late_topic

    @property
    def outputs(self) -> tuple[Topic, ...]:
        """The topics that it writes to, beside its changelog."""
        results = (self.emitter.topic,) if self.emitter is not None else ()
        return results if self.late_topic is None else (*results, self.late_topic)

    def open(self, store: Store, emit: Emit | None) -> Any:
        """Return this table's partition on a task's store."""
        raise NotImplementedError

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records, by family."""
        return {self.name: changes}

    def name_changelog(self, app_id: str) -> Topic | None:
        """Name the topic that the changes are logged to; a table that is a topic needs none."""
        return self._own_changelog(app_id) if self.source is None else None

    def _own_changelog(self, app_id: str) -> Topic:
        if self.changelog is None:
            self.changelog = Topic(
                f"{app_id}-{self.name}-changelog",
                Contract.of(f"{self.name}-changelog", bytes, null_values=True),
                TopicConfig(compacted=True),
                internal=True,
            )
        return self.changelog


class Table(TableHandle, Generic[K, V]):
    """A keyed table. Reads like a dict: ``table[key]``, ``table.get(key)``, ``key in table``.

    ``Table[str, Profile]`` tells a type checker what is in it.

    A value that is changed in place must be set again (``table[key] = value``) to be kept.

    Args:
        default: makes the value of a key that is not there, as in a defaultdict.
        reduce: (value, event) -> value, for :meth:`update` and for the windows of this table. It
            may change the value in place. Where ``value_type`` is a class of
            :class:`engine.aggregates.Aggregates`, both come from it.
        source: the compacted topic that this table *is*; then it is read-only.
    """

    def __init__(
        self,
        name: str,
        *,
        default: Callable[[], V] | None = None,
        reduce: Callable[[V, Any], V] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.default: Callable[[], Any] | None = default
        self.reduce: Callable[[Any, Any], Any] | None = reduce
        if is_aggregates(self.value_type):
            self.default = default or self.value_type
            self.reduce = reduce or self.value_type.add
        if self.source is not None:
            self.key_type = self.source.contract.key_type
            self.key = TEXT_KEYS if self.key_type is None else self.source.key
            self.value_type = self.source.contract.value_type

    def open(self, store: Store, emit: Emit | None) -> KeyedPartition:
        """Return this table's partition on a task's store."""
        value: Codec[Any] = (
            value_codec(self.value_type)
            if self.source is None
            else Codec(self.source.contract.encode, self.source.contract.decode)
        )
        return KeyedPartition(
            self.name, store, key=self.key, value=value, cache_entries=self.cache_entries
        )

    def _writable(self) -> Any:
        if self.source is not None:
            raise ConfigError(
                f"table {self.name!r} is the topic {self.source.name}: send to the topic instead"
            )
        return self._here()

    def get(self, key: K, default: V | None = None) -> V | None:
        """Return the value of ``key``, or ``default``; the table's own default plays no part."""
        value: V | None = self._here().get(key, default)
        return value

    def __getitem__(self, key: K) -> V:
        partition = self._here()
        value: V | None = partition.get(key)
        if value is None:
            if self.default is None:
                raise KeyError(key)
            value = self.default()
        return value

    def __setitem__(self, key: K, value: V | None) -> None:
        if value is None:
            self._writable().delete(key)
        else:
            self._writable().put(key, value)

    def __delitem__(self, key: K) -> None:
        partition = self._writable()
        if partition.get(key) is None:
            raise KeyError(key)
        partition.delete(key)

    def __contains__(self, key: object) -> bool:
        return self._here().get(key) is not None

    def pop(self, key: K, default: V | None = None) -> V | None:
        """Remove ``key`` and return its value, or ``default``."""
        partition = self._writable()
        value: V | None = partition.get(key)
        if value is None:
            return default
        partition.delete(key)
        return value

    def update(self, key: K | None, event: Any) -> None:
        """Reduce ``event`` into the value of ``key``; without a key it is dropped.

        Raises:
            ConfigError: the table has no ``reduce=`` and no aggregates.
        """
        reduce = self.reduce
        if reduce is None:
            raise ConfigError(f"table {self.name!r}: update() needs reduce= or aggregates")
        if key is not None:
            partition = self._writable()
            value = partition.get(key)
            if value is None and self.default is not None:
                value = self.default()
            partition.put(key, reduce(value, event))

    def setdefault(self, key: K, default: V | None = None) -> V | None:
        """Return the value of ``key``, setting it to ``default`` first if it is not there."""
        value = self.get(key)
        if value is None:
            self[key] = value = default
        return value

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield this task's entries, in the order of the keys' bytes. Reads the whole partition."""
        items: Iterator[tuple[K, V]] = self._here().items()
        return items

    def keys(self) -> Iterator[K]:
        """Yield this task's keys."""
        return (key for key, _ in self.items())

    def values(self) -> Iterator[V]:
        """Yield this task's values."""
        return (value for _, value in self.items())

    # -- timers ------------------------------------------------------------------------------

    def timer(self, fun: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        """Make a function what timers of this table call: with their key and time (ms).

        It may be a coroutine function. It uses tables and sends as an agent does; if it raises, its
        task stops. Calls come in the order of (time, key), each exactly once.
        """
        from engine.timers import TableTimers  # noqa: PLC0415  (a cycle otherwise)

        if self.timers is not None:
            raise ConfigError(f"table {self.name!r} has a timer function already")
        self.timers = TableTimers(self, fun)
        return fun

    def at(self, time: int, key: Any) -> None:
        """Call the timer function for ``key`` once stream time has reached ``time``.

        Args:
            time: event time, ms. One that is reached already is called before the next event.
            key: of this table; it need not have a value. The same time and key twice is one call.
        """
        self._timers().set(time, key)

    def cancel(self, time: int, key: Any) -> None:
        """Take back what :meth:`at` did; what was never set, or has fired, is no error."""
        self._timers().cancel(time, key)

    def _timers(self) -> TableTimers:
        if self.timers is None:
            raise ConfigError(f"table {self.name!r} has no function for timers: @table.timer")
        return self.timers

    # -- windows -----------------------------------------------------------------------------

    def tumbling(self, size: Seconds, *, grace: Seconds = 0, **options: Any) -> WindowedTable:
        """Return this table with a value per key *and* window of ``size`` seconds.

        Args:
            grace: how many seconds after its end a window still takes late events.
            options: see :class:`engine.windowed.WindowedTable`; and ``delay``, of the watermark in
                seconds, by which stream time less so much closes a window (Flink's rule).
        """
        return self.hopping(size, size, grace=grace, **options)

    def hopping(
        self, size: Seconds, step: Seconds, *, grace: Seconds = 0, **options: Any
    ) -> WindowedTable:
        """Return this table with windows of ``size`` seconds that begin every ``step`` seconds.

        An event is in each window that contains its time.
        """
        from engine.windowed import hopping  # noqa: PLC0415  (a cycle otherwise)

        return hopping(self, size, step, grace=grace, **options)

    def sliding(self, size: Seconds, *, grace: Seconds = 0, **options: Any) -> WindowedTable:
        """Return this table with windows of ``size`` seconds that move along with the events.

        Each event ends one window and begins another (:mod:`tables.sliding`).
        """
        from engine.windowed import sliding  # noqa: PLC0415  (a cycle otherwise)

        return sliding(self, size, grace=grace, **options)

    def counted(self, size: int, step: int | None = None, **options: Any) -> CountedTable:
        """Return this table with a value per key and window of ``size`` of the key's events.

        Args:
            step: a window begins every ``step`` events; None: when the one before is full.
            options: see :class:`engine.counted.CountedTable`.
        """
        from engine.counted import counted  # noqa: PLC0415  (a cycle otherwise)

        return counted(self, size, step, **options)
