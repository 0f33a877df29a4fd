"""Joins of a stream with what comes near it in time: another stream, or a table's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.feed import TICK
from engine.move import key_function
from engine.operator import Operator
from engine.topic import Topic
from engine.versioned import VersionedTable
from engine.windowed import milliseconds
from tables import asof, reach
from tables.asof import AsOfPartition
from tables.codec import Codec
from tables.reach import Reach
from tables.streamjoin import StreamJoinPartition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from engine.context import Context
    from engine.operator import Make
    from engine.table import Emit, Seconds
    from tables.store import Change, Store
    from tables.streamjoin import How, Release


class StreamJoin(Operator):
    """Pairs (left, right) of records with the same key that are near in time.

    A left record at t meets the right ones from t - ``before`` to t + ``after``, both included. The
    semantics are those of Kafka Streams' joins of two streams; see :mod:`tables.streamjoin`. A
    pair's event time is the later of the two; its key is theirs.

    Args:
        left, right: the topics. They must be co-partitioned, and have keys of the same bytes.
        within: ``before`` and ``after`` in one, in seconds.
        before, after: in seconds; one that is not given is 0.
        grace: how many seconds a lonely record waits beyond its window for one that is late.
        how: ``inner``: pairs only; ``left``: a left record that meets nobody comes as
            (left, None); ``outer``: a right one too, as (None, right).
        release: when lonely records come out: ``close``, once stream time is beyond their window
            and grace; ``kafka``, when Kafka Streams would look for them, up to a window later.

    Raises:
        ConfigError: there is no window, or both kinds, or a time below 0, or no such ``how``.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        left: Topic,
        right: Topic,
        *,
        within: Seconds | None = None,
        before: Seconds | None = None,
        after: Seconds | None = None,
        grace: Seconds | None = None,
        how: How = "inner",
        release: Release = "close",
        **options: Any,
    ) -> None:
        super().__init__(name, (left, right), **options)
        if how not in {"inner", "left", "outer"}:
            raise ConfigError(f"{name}: how={how!r} must be 'inner', 'left' or 'outer'")
        if (within is None) == (before is None and after is None):
            raise ConfigError(
                f"{name}: a join of two streams needs within=seconds, or before= and after="
            )
        if within is not None:
            before = after = within
        times = [milliseconds(each or 0) for each in (before, after, grace)]
        if min(times) < 0:
            raise ConfigError(f"{name}: within, before, after and grace are 0 seconds or more")
        self.reach = Reach(*times)
        if release not in {"close", "kafka"}:
            raise ConfigError(f"{name}: release={release!r} must be 'close' or 'kafka'")
        self.how: How = how
        self.release: Release = release

    def open(self, store: Store, emit: Emit | None) -> StreamJoinPartition:
        """Return this operator's partition on a task's store."""
        return StreamJoinPartition(
            self.name, store, reach=self.reach, how=self.how, release=self.release,
            codecs=[_values_of(topic) for topic in self.inputs], cache_entries=self.cache_entries,
        )  # fmt: skip

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return reach.restored(self.name, changes, self.reach)


class AsOfJoin(Operator):
    """Pairs (value, row) of a stream's records with what a versioned table said at their time.

    A record waits for the table's late updates: see :mod:`tables.asof`.

    Args:
        topic: the stream's.
        table: its history must be as long as ``grace``, at least.
        grace: how many seconds a record waits, by the event time of records that came after it.
        how: ``inner`` leaves out a record without a row; ``left`` yields it with None.

    Raises:
        ConfigError: a table without history or with too short a one, or no such ``how``.
    """

    def __init__(
        self, name: str, topic: Topic, table: Any, *, grace: Seconds, how: str, **options: Any
    ) -> None:
        super().__init__(name, (topic,), uses=(table,), **options)
        if how not in {"inner", "left"}:
            raise ConfigError(f"{name}: how={how!r} must be 'inner' or 'left'")
        if not isinstance(table, VersionedTable):
            raise ConfigError(
                f"{name}: a record that waits asks what the table said at its time: declare it "
                f"with app.Table({table.name!r}, history=seconds, ...), or leave out grace="
            )
        self.grace_ms = milliseconds(grace)
        if not 0 <= self.grace_ms <= table.history_ms:
            raise ConfigError(
                f"{name}: grace= is 0 or more seconds, and not more than the history of "
                f"{table.name}, which is {table.history_ms / 1000:g}"
            )
        self.table = table
        self.how = how

    def open(self, store: Store, emit: Emit | None) -> AsOfPartition:
        """Return this operator's partition on a task's store."""
        return AsOfPartition(
            self.name, store, table=self.table.name, key=self.table.key,
            value=_values_of(self.inputs[0]), grace_ms=self.grace_ms, left=self.how == "left",
            cache_entries=self.cache_entries,
        )  # fmt: skip

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records: them, and their timers."""
        return asof.restored(self.name, changes, self.grace_ms)


def _values_of(topic: Topic) -> Codec[Any]:
    """Return the codec of a topic's values, which is the topic's own."""
    return Codec(topic.contract.encode, topic.contract.decode)


def operator_of(other: Any, *, how: str, **times: Seconds | None) -> tuple[str, Make] | None:
    """Return name and maker of the operator that ``stream.join(other, ...)`` needs, if it does.

    Raises:
        ConfigError: what is asked for is not a join.
    """
    given: dict[str, Any] = {name: each for name, each in times.items() if each is not None}
    if not isinstance(other, Topic) and given.keys() - {"grace"}:
        raise ConfigError(
            f"join({other.name}, {', '.join(given)}): only a join with another topic has a window"
        )
    if not isinstance(other, Topic) and not given:
        return None
    given["how"] = how

    def make(name: str, own: Topic) -> Operator:
        kind: Any = StreamJoin if isinstance(other, Topic) else AsOfJoin
        join: Operator = kind(name, own, other, **given)
        return join

    return f"join-{other.name}", make


def pairs_with(
    table: Any, how: str, on: Any
) -> Callable[[Context, AsyncIterator[Any]], AsyncIterator[Any]]:
    """Return what makes pairs of values and a table's rows, in an agent's context.

    Args:
        on: the key to look for, where it is not the record's; see :meth:`Stream.join`.
    """
    if how not in {"inner", "left"}:
        raise ConfigError(f"join(how={how!r}): a stream-table join is 'inner' or 'left'")
    get, get_at, decode = table.get, getattr(table, "get_at", None), table.key.decode
    key_of = None if on is None else key_function(on)

    async def pairs(context: Context, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for value in events:
            if value is TICK:
                yield value
            elif value is not None:
                if key_of is None:
                    raw = context.source_key()
                    key = None if raw is None else decode(raw)
                else:
                    key = key_of(value)
                if key is None:
                    row = None
                else:
                    row = get(key) if get_at is None else get_at(key, context.time_ms())
                if row is not None or how == "left":
                    yield value, row

    return pairs
