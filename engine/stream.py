"""What an agent iterates over: Faust's stream and its views, on a :class:`engine.feed.Feed`.

A view that keeps events back (``take``) holds the position back with them, so a commit never passes
over an event that sits in a buffer.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from engine import cpu
from engine.ahead import Ahead, AsyncCalls, Calls
from engine.chunks import chunks
from engine.errors import ConfigError
from engine.event import Event, event_in_hand
from engine.feed import TICK, Feed
from engine.foreignkey import table_join_with
from engine.joins import operator_of, pairs_with
from engine.lookup import LookupCalls
from engine.matcher import Matcher
from engine.move import Move, NotMoved, key_function, key_name
from engine.operator import results

if TYPE_CHECKING:
    from engine.operator import Make, Operator
    from engine.pattern import Pattern
    from engine.table import Seconds, Table
    from engine.topic import Topic


T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


class Stream(Generic[T]):
    """Faust's stream, on a :class:`Feed`. Views share the feed, so they can be stacked.

    ``Stream[RawEvent]`` tells a type checker what it yields, and what its views do.
    """

    def __init__(self, feed: Feed, decode_key: Callable[[bytes], Any], source: Any = None) -> None:
        self._feed = feed
        self._decode_key = decode_key
        self._source = source or feed.values
        self.chunked = False  # below a take
        self.operated = False  # below an operator
        self.plain = source is None  # the events are as they came: all of them
        self.whole = self.plain  # their values are
        self.marked = False  # below a view that looks ahead: ticks come through

    def __aiter__(self) -> AsyncIterator[T]:
        return self._without_ticks() if self.marked else self._source()

    async def _without_ticks(self) -> AsyncIterator[T]:
        async for value in self._source():
            if value is not TICK:
                yield value

    def _view(self, source: Callable[[], AsyncIterator[Any]]) -> Stream[Any]:
        view: Stream[Any] = Stream(self._feed, self._decode_key, source)
        view.chunked, view.marked, view.operated = self.chunked, self.marked, self.operated
        return view

    def _key(self) -> Any:
        raw = self._feed.context.source_key()
        return None if raw is None else self._decode_key(raw)

    def items(self) -> Stream[tuple[Any, T]]:
        """Yield (key, value)."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                yield value if value is TICK else (self._key(), value)

        return self._view(source)

    def events(self) -> Stream[Event]:
        """Yield :class:`Event`: the value with its key, headers, timestamp (s) and coordinates."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                yield value if value is TICK else self._event(value)

        return self._view(source)

    def _event(self, value: Any) -> Event:
        return event_in_hand(self._feed.context, self._key(), value)

    def enumerate(self, start: int = 0) -> Stream[tuple[int, T]]:
        """Yield (number, value)."""

        async def source() -> AsyncIterator[Any]:
            number = start
            async for value in self._source():
                if value is TICK:
                    yield value
                else:
                    yield number, value
                    number += 1

        return self._view(source)

    def filter(self, fun: Callable[[T], Any]) -> Stream[T]:
        """Keep the values for which ``fun`` (sync or async) is true."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is TICK or await _maybe(fun(value)):
                    yield value

        whole, view = self.whole, self._view(source)
        view.whole = whole
        return view

    def map(self, fun: Callable[[T], Awaitable[U] | U]) -> Stream[U]:
        """Yield ``fun(value)`` (sync or async)."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                yield value if value is TICK else await _maybe(fun(value))

        return self._view(source)

    def add_processor(self, fun: Callable[[T], Awaitable[U] | U]) -> Stream[U]:
        """Do what :meth:`map` does (Faust's name)."""
        return self.map(fun)

    @overload
    def join(
        self,
        other: Table[Any, V],
        *,
        how: Literal["inner"] = "inner",
        on: Any = None,
        grace: Seconds | None = None,
    ) -> Stream[tuple[T, V]]: ...

    @overload
    def join(
        self,
        other: Table[Any, V],
        *,
        how: Literal["left"],
        on: Any = None,
        grace: Seconds | None = None,
    ) -> Stream[tuple[T, V | None]]: ...

    @overload
    def join(
        self,
        other: Topic,
        *,
        how: Literal["inner", "left", "outer"] = "inner",
        on: Any = None,
        within: Seconds | None = None,
        before: Seconds | None = None,
        after: Seconds | None = None,
        grace: Seconds | None = None,
    ) -> Stream[tuple[Any, Any]]: ...

    def join(
        self, other: Any, *, how: str = "inner", on: Any = None, **times: Seconds | None
    ) -> Stream[Any]:
        """Yield pairs: the value, and what ``other`` has for the record's key.

        * A table: the row that it holds at this moment; with a history, the one that it held at the
          record's time. With ``grace``, records wait for the table's late updates
          (:class:`engine.joins.AsOfJoin`).
        * Another topic: its records that are near in time (:class:`engine.joins.StreamJoin`).

        Args:
            how: ``inner`` leaves out a value without a partner; ``left`` yields it with None; with
                a topic also ``outer``: its records without a partner come as (None, value). As in
                Kafka Streams, a null value is dropped by all, a null key by ``inner``.
            on: another key than the record's: a field, a field's name or a function of the value.
                The records go on re-keyed (:meth:`group_by`), but for a global table's sake.
            times: ``within``, ``before``, ``after``, ``grace``, in seconds; see there.

        Raises:
            ConfigError: these do not go together.
        """
        if on is not None and not getattr(other, "is_global", False):
            name = f"join-{other.name}" if inspect.isroutine(on) else None
            return self.group_by(on, name=name).join(other, how=how, **times)  # type: ignore[call-overload, no-any-return]
        wanted = operator_of(other, how=how, **times)
        if wanted is not None:
            return self._operate(*wanted)
        pairs = pairs_with(other, how, on)
        return self._view(lambda: pairs(self._feed.context, self._source()))

    def table_join(self, right: Any, *, on: Any = None, **options: Any) -> Stream[Any]:
        """Take the records as changes of a table, and yield its rows, joined with another table's.

        Each comes as (left, right), or None where it has gone: see
        :class:`engine.tablejoins.TableJoin` and, with ``on=``,
        :class:`engine.foreignkey.ForeignKeyJoin`, whose options these are.
        """
        return self._operate(*table_join_with(right, on, options))

    def aggregate(self, table: Any, key: Any = None) -> Stream[T]:
        """Add each value to a windowed or session table (``table.update``), and yield it.

        Args:
            key: a field, a field's name or a function of the value; by default the record's key.
        """
        key_of = None if key is None else key_function(key)

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is not TICK:
                    table.update(self._key() if key_of is None else key_of(value), value)
                yield value

        view = self._view(source)
        view.whole = self.whole
        return view

    def take(self, max_: int, within: float | None = None) -> Stream[list[T]]:
        """Yield lists of up to ``max_`` values, a shorter one after ``within`` seconds.

        Events in the buffer are not done: after a crash they come again. Those of a list on which
        the agent raises come one by one in the end, to find out which it is.
        """
        if self.operated:
            raise ConfigError(
                "take() behind a join of streams or a pattern would hold back events that their "
                "state has counted already: yield to a topic, and take() from that"
            )
        view = self._view(lambda: chunks(self._feed, self._source(), max_, within))
        view.chunked = True
        return view

    noack_take = take

    def map_async(
        self,
        fn: Callable[[T], Awaitable[U]],
        *,
        concurrency: int = 100,
        timeout: float | None = None,
    ) -> Stream[U]:
        """Yield ``await fn(value)``, in order, with several calls under way at a time: for I/O.

        What ``fn`` raises is raised on its event, as if the agent had done it. Results that the
        agent has not worked on count for nothing: after a crash, a rebalance or a rollback ``fn``
        is called with those events again. It has the value and nothing else: no tables, no key.

        Args:
            fn: a coroutine function.
            concurrency: so many events at most between the one that the agent works on and the
                last that is called for; over the events that the task gets in one round.
            timeout: of one call, in seconds; then it raises TimeoutError.

        Raises:
            ConfigError: ``fn`` is no coroutine function, or the view stands behind ``take``.
        """
        return self._ahead(AsyncCalls(fn, concurrency, timeout))

    def map_cpu(self, fn: Callable[[T], U], *, workers: int | None = None) -> Stream[U]:
        """Yield ``fn(value)``, in order, worked out by other processes: for what takes CPU time.

        What ``fn`` raises is raised on its event, and so is :class:`engine.cpu.ProcessDied` where a
        process does not survive it. Results that the agent has not worked on count for nothing, as
        in :meth:`map_async`. Values and results are pickled on their way.

        Args:
            fn: a function at the top of a module, which the other processes import.
            workers: so many processes, for all tasks of this worker and all agents that name the
                same number; by default one a CPU. They start with the first event.

        Raises:
            ConfigError: other processes cannot find ``fn``, or the view stands behind ``take``.
        """
        return self._ahead(cpu.CpuCalls(fn, workers))

    def lookup(
        self,
        fn: Callable[[Any], Awaitable[U]],
        *,
        on: Any = None,
        ttl: Seconds = 60,
        size: int = 10_000,
        concurrency: int = 100,
        timeout: float | None = None,
    ) -> Stream[tuple[T, U]]:
        """Yield (value, ``await fn(key)``), in order: a join with something outside of Kafka.

        Answers are kept, and events that ask for one key at a time share a call. A null value is
        dropped; a value without a key comes with None, without a call. What ``fn`` raises is raised
        on each event that waited for it, and not kept. A replay may find something else.

        Args:
            fn: a coroutine function of the key, which must be hashable.
            on: the key: a field, its name or a function of the value; None: the record's key.
            ttl: how long an answer counts, from when it came (s); 0: answers are not kept.
            size: so many answers are kept in each task; the least recently used go first.
            concurrency, timeout: as in :meth:`map_async`.

        Raises:
            ConfigError: ``fn`` is no coroutine function, a number is out of its bounds, or the view
                stands behind ``take``.
        """
        key_of: Callable[[Any], Any] = (lambda _: self._key()) if on is None else key_function(on)
        calls = LookupCalls(fn, ttl=ttl, size=size, concurrency=concurrency, timeout=timeout)

        return self._ahead(calls, lambda: calls.asked_for(self._feed, self._source(), key_of))

    def _ahead(
        self, calls: Calls, events: Callable[[], AsyncIterator[Any]] | None = None
    ) -> Stream[Any]:
        """Return a view that calls for a run's events ahead of their turn.

        Args:
            events: what is called for, where that is not the values themselves.
        """
        if self.chunked or self.operated:
            raise ConfigError(
                "map_async and map_cpu come before take, and not behind a join of streams or a "
                "pattern: stream.map_async(fn).take(n)"
            )

        async def source() -> AsyncIterator[Any]:
            feed = self._feed
            feed.marking = True
            ahead = Ahead(feed, calls)
            async for value in (events or self._source)():
                if value is not TICK:
                    ahead.read(value)
                    continue
                while ahead:
                    yield await ahead.next()
                    if feed.overdue:
                        yield TICK
                feed.caught_up()
                yield TICK

        view = self._view(source)
        view.marked = True
        return view

    def match(self, pattern: Pattern[Any], *, name: str = "match", **options: Any) -> Stream[Any]:
        """Yield the matches of a pattern in the events, key by key.

        Args:
            name: tells it from other operators of the agent, and names its state.
            options: ``delay``, ``timeouts`` and others: see :class:`engine.matcher.Matcher`.
        """

        def make(whole_name: str, topic: Topic) -> Operator:
            return Matcher(whole_name, topic, pattern, **options)

        return self._operate(name, make)

    def apply(self, operator: Operator) -> Stream[Any]:
        """Yield what an operator makes of the events; see :mod:`engine.operator`.

        While the agent has a result in hand, the key and the event time are the result's own.
        """
        self._can_operate(operator.name)
        if len(operator.inputs) > 1 and not self.plain:
            raise ConfigError(f"{operator.name}: filter() what comes out of it, not what goes in")

        def source() -> AsyncIterator[Any]:
            return results(self._feed, self._source(), operator)

        view = self._view(source)
        view.marked = view.operated = True
        return view

    def _can_operate(self, name: str) -> None:
        if self.operated or self.chunked or not self.whole:
            raise ConfigError(
                f"{name}: a join of streams or a pattern comes first, on the events as they are, "
                "and one an agent: put it into an agent of its own, with a topic in between"
            )

    def _operate(self, name: str, make: Make) -> Stream[Any]:
        """Apply the operator of that name, which ``make(its whole name, topic)`` made at the probe.

        Args:
            name: tells an agent's operators apart; the agent's own name goes before it.
            make: gets the topic that the stream reads at this point.
        """
        return self.apply(self._feed.operators[name])

    def batches(self) -> AsyncIterator[list[T]]:
        """Yield the events as they came from the broker: a list a run."""

        async def source() -> AsyncIterator[list[Any]]:
            async for run in self._feed.runs():
                yield run.events

        return source()

    def group_by(
        self, key: Any, *, name: str | None = None, topic: Topic | None = None
    ) -> Stream[T]:
        """Go on with the records re-keyed by ``key``, moved to their new partitions.

        Args:
            key: a field (``Order.account_id``), a field's name, or a function of the value.
            name: names the topic in between; needed when ``key`` is a function.
            topic: use this topic instead of an internal one.
        """
        return self._moved(Move(key_function(key), name or key_name(key), topic))

    def through(self, topic: Topic) -> Stream[Any]:
        """Send the records through another topic and go on with what comes out of it."""
        return self._moved(Move(None, topic.name, topic))

    def _moved(self, move: Move) -> Stream[Any]:
        raise NotMoved(move)

    @property
    def current_event(self) -> Event | None:
        """The event in hand, with what came with it."""
        context = self._feed.context
        return None if context.run is None else self._event(context.run.events[context.index])


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
