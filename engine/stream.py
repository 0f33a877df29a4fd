"""What an agent iterates over: Faust's stream and its views, on a :class:`engine.feed.Feed`.

A view that keeps events back (``take``) holds the position back with them, so a commit never passes
over an event that sits in a buffer.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from engine import cpu
from engine.ahead import Ahead, AsyncCalls, Calls
from engine.errors import ConfigError
from engine.feed import TICK, Feed

if TYPE_CHECKING:
    from engine.record import Headers
    from engine.topic import Topic


class Event(NamedTuple):
    """An event with what came with it (``stream.events()``)."""

    key: Any
    value: Any
    headers: Headers
    timestamp: float
    topic: str
    partition: int
    offset: int


class Stream:
    """Faust's stream, on a :class:`Feed`. Views share the feed, so they can be stacked."""

    def __init__(self, feed: Feed, decode_key: Callable[[bytes], Any], source: Any = None) -> None:
        self._feed = feed
        self._decode_key = decode_key
        self._source = source or feed.values
        self.chunked = False  # below a take
        self.marked = False  # below a view that looks ahead: ticks come through

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._without_ticks() if self.marked else self._source()

    async def _without_ticks(self) -> AsyncIterator[Any]:
        async for value in self._source():
            if value is not TICK:
                yield value

    def _view(self, source: Callable[[], AsyncIterator[Any]]) -> Stream:
        view = Stream(self._feed, self._decode_key, source)
        view.chunked, view.marked = self.chunked, self.marked
        return view

    def _key(self) -> Any:
        raw = self._feed.context.source_key()
        return None if raw is None else self._decode_key(raw)

    def items(self) -> Stream:
        """Yield (key, value)."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                yield value if value is TICK else (self._key(), value)

        return self._view(source)

    def events(self) -> Stream:
        """Yield :class:`Event`: the value with its key, headers, timestamp (s) and coordinates."""

        async def source() -> AsyncIterator[Any]:
            context = self._feed.context
            async for value in self._source():
                if value is TICK:
                    yield value
                    continue
                run, i = context.run, context.index
                assert run is not None
                yield Event(
                    self._key(), value, run.headers[i], run.timestamps[i] / 1000,
                    run.tp.topic, run.tp.partition, run.offsets[i],
                )  # fmt: skip

        return self._view(source)

    def enumerate(self, start: int = 0) -> Stream:
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

    def filter(self, fun: Callable[[Any], Any]) -> Stream:
        """Keep the values for which ``fun`` (sync or async) is true."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is TICK or await _maybe(fun(value)):
                    yield value

        return self._view(source)

    def map(self, fun: Callable[[Any], Any]) -> Stream:
        """Yield ``fun(value)`` (sync or async)."""

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                yield value if value is TICK else await _maybe(fun(value))

        return self._view(source)

    def add_processor(self, fun: Callable[[Any], Any]) -> Stream:
        """Do what :meth:`map` does (Faust's name)."""
        return self.map(fun)

    def join(self, table: Any, *, how: str = "inner") -> Stream:
        """Yield (value, row): the row that ``table`` holds for the record's key at this moment.

        Args:
            how: ``inner`` leaves out a value without a row; ``left`` yields it with None. As in
                Kafka Streams, a null value is dropped by both, a null key by ``inner``.
        """
        if how not in {"inner", "left"}:
            raise ConfigError(f"join(how={how!r}): a stream-table join is 'inner' or 'left'")

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is TICK:
                    yield value
                elif value is not None:
                    raw = self._feed.context.source_key()
                    row = None if raw is None else table.get(table.key.decode(raw))
                    if row is not None or how == "left":
                        yield value, row

        return self._view(source)

    def take(self, max_: int, within: float | None = None) -> Stream:
        """Yield lists of up to ``max_`` values, a shorter one after ``within`` seconds.

        Events in the buffer are not done: after a crash they come again. Those of a list on which
        the agent raises come one by one in the end, to find out which it is.
        """

        async def source() -> AsyncIterator[Any]:
            feed = self._feed
            if feed.handed_over:  # the loop was left with a chunk in hand: that is done
                feed.release()
            taken: list[Any] = []
            async for value in self._source():
                if value is not TICK:
                    if not taken and within is not None:
                        feed.tick_in(within * 1000)
                    feed.hold()
                    taken.append(value)
                    if len(taken) < max_ and not (feed.singly and feed.alone()):
                        continue
                elif not feed.overdue:
                    continue
                feed.no_tick()
                if taken:
                    chunk, taken = taken, []
                    feed.handed_over = True
                    yield chunk
                    feed.release()

        view = self._view(source)
        view.chunked = True
        return view

    noack_take = take

    def map_async(
        self, fn: Callable[[Any], Any], *, concurrency: int = 100, timeout: float | None = None
    ) -> Stream:
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

    def map_cpu(self, fn: Callable[[Any], Any], *, workers: int | None = None) -> Stream:
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

    def _ahead(self, calls: Calls) -> Stream:
        """Return a view that calls for a run's events ahead of their turn."""
        if self.chunked:
            raise ConfigError(
                "map_async and map_cpu come before take: stream.map_async(fn).take(n)"
            )

        async def source() -> AsyncIterator[Any]:
            feed = self._feed
            feed.marking = True
            ahead = Ahead(feed, calls)
            async for value in self._source():
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

    def batches(self) -> AsyncIterator[list[Any]]:
        """Yield the events as they came from the broker: a list a run."""

        async def source() -> AsyncIterator[list[Any]]:
            async for run in self._feed.runs():
                yield run.events

        return source()

    def group_by(self, key: Any, *, name: str | None = None, topic: Topic | None = None) -> Stream:
        """Go on with the records re-keyed by ``key``, moved to their new partitions.

        Args:
            key: a field (``Order.account_id``), a field's name, or a function of the value.
            name: names the topic in between; needed when ``key`` is a function.
            topic: use this topic instead of an internal one.
        """
        return self._moved(Move(key_function(key), name or key_name(key), topic))

    def through(self, topic: Topic) -> Stream:
        """Send the records through another topic and go on with what comes out of it."""
        return self._moved(Move(None, topic.name, topic))

    def _moved(self, move: Move) -> Stream:
        raise NotMoved(move)

    @property
    def current_event(self) -> Event | None:
        """The event in hand, with what came with it."""
        context = self._feed.context
        run, i = context.run, context.index
        if run is None:
            return None
        return Event(
            self._key(), run.events[i], run.headers[i], run.timestamps[i] / 1000,
            run.tp.topic, run.tp.partition, run.offsets[i],
        )  # fmt: skip


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Move(NamedTuple):
    """A change of topic in the middle of an agent: by ``group_by`` or by ``through``."""

    key: Callable[[Any], Any] | None
    name: str
    topic: Topic | None


class NotMoved(Exception):
    """An agent asked for a move that the topology had not found when it probed the agent."""

    def __init__(self, move: Move) -> None:
        self.move = move
        super().__init__(
            f"group_by/through {move.name!r} must be called where the agent's loop begins "
            "(async for x in stream.group_by(...)), so that the topology knows it before the start"
        )


class Probe(Stream):
    """Stands for a stream while the topology is found out: remembers the move, yields nothing."""

    def __init__(self) -> None:
        self.move: Move | None = None
        self.chunked = False

    def __aiter__(self) -> AsyncIterator[Any]:
        raise ProbedError

    def _view(self, source: Any) -> Stream:
        return self

    def batches(self) -> AsyncIterator[list[Any]]:
        """End the probe."""
        raise ProbedError

    def _moved(self, move: Move) -> Stream:
        self.move = move
        return self

    @property
    def current_event(self) -> None:
        """There is no event before the loop."""
        return


class ProbedError(Exception):
    """The probe has come to the agent's loop."""


class BeforeMove(Stream):
    """An agent's stream up to its move: what comes there goes to the topic in between."""

    forward: Callable[[Any, Move], None]

    def _view(self, source: Callable[[], AsyncIterator[Any]]) -> Stream:
        view = BeforeMove(self._feed, self._decode_key, source)
        view.forward = self.forward
        view.chunked = self.chunked
        return view

    def _moved(self, move: Move) -> Stream:
        forward = self.forward

        async def source() -> AsyncIterator[Any]:
            async for value in self._source():
                if value is not TICK:
                    forward(value, move)
            yield  # pragma: no cover  (never reached: a feed does not end)

        return Stream(self._feed, self._decode_key, source)


class AfterMove(Stream):
    """An agent's stream from its move on: views before it were taken by :class:`BeforeMove`."""

    def _view(self, source: Any) -> Stream:
        return self

    def _moved(self, move: Move) -> Stream:
        return Stream(self._feed, self._decode_key)


def key_function(key: Any) -> Callable[[Any], Any]:
    """Return a function of the value for a field, a field's name, or a function."""
    if isinstance(key, str):
        return operator.attrgetter(key)
    if hasattr(key, "__get__") and not inspect.isroutine(key):  # a Struct's field
        return operator.attrgetter(key_name(key))
    if callable(key):
        return key  # type: ignore[no-any-return]
    return operator.attrgetter(key_name(key))


def key_name(key: Any) -> str:
    """Return the name of a field; a function without a name of its own needs one given."""
    name = key if isinstance(key, str) else getattr(key, "field", getattr(key, "__name__", ""))
    if not name or name == "<lambda>":
        raise ConfigError("group_by(function) needs name=...: it names the topic in between")
    return str(name)
