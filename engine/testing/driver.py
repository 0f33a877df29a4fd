"""The Driver: an app at work without a broker, one step at a time.

>>> with Driver(app) as driver:
...     driver.pipe("orders", key="k1", value={"id": 1}, timestamp=0)
...     assert driver.read("bills")[0].value.total == 3

It runs the same loop, tasks, tables and commits as a worker does; only its edges are replaced
(:mod:`engine.testing.memory`) and its clock is moved by hand. ``crash()`` forgets everything that
was not committed, as ``kill -9`` would.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from engine.errors import ConfigError
from engine.life import State
from engine.loop import Engine
from engine.record import TP, Headers, Output
from engine.task import END_MARK
from engine.testing.memory import HandClock, MemoryBroker, memory_edges
from engine.topic import Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from engine.app import App
    from engine.edges import Edges
    from engine.errors import TaskStopped
    from engine.task import Task

_STUCK_S = 30.0
_ROUNDS_AWAKE = 20
_NAP_S = 0.0005


class Delivered(NamedTuple):
    """A record that came out, decoded by its topic's contract."""

    topic: str
    partition: int
    offset: int
    key: Any
    value: Any
    timestamp: int
    headers: Headers

    def header(self, name: str) -> str | None:
        """Return the last header of that name as text."""
        found = [value for key, value in self.headers if key == name]
        return found[-1].decode() if found else None


Sent = tuple[str, bytes | None, bytes | None, int, Headers]
"""A record on its way in: topic, key, value, timestamp (ms), headers."""


class Driver:
    """An app in memory.

    Args:
        app: the app; what it has declared when the Driver starts is what runs.
        partitions: of every topic that is not created otherwise (co-partitioned by default).
        start_ms: what the clock says at first.
        settings: overrides of the app's settings, e.g. ``window_headers=True``. Event times may be
            ahead of this clock, unless ``future_limit_ms`` is given.

    Attributes:
        wrap: changes the edges of the next start: a broker that refuses, a store that is full.
    """

    def __init__(
        self, app: App, *, partitions: int = 1, start_ms: int = 0, **settings: Any
    ) -> None:
        self.app = app
        self.clock = HandClock(start_ms)
        self.broker = MemoryBroker(partitions)
        self._settings = {"end_marks": True, "future_limit_ms": 0, **settings}
        self._runner: asyncio.Runner | None = None
        self._engine: Engine | None = None
        self._seen: dict[str, int] = {}
        self._calls: list[asyncio.Task[Any]] = []  # timers' functions at work
        self._told: list[TaskStopped] = []  # raised already
        self.wrap: Callable[[Edges], Edges] = lambda edges: edges

    # -- life --------------------------------------------------------------------------------

    def __enter__(self) -> Driver:
        self._runner = asyncio.Runner()
        try:
            self.restart()
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._engine is not None and kind is None:
                self._run(self._stop())
            elif self._engine is not None:
                self.crash()
        finally:
            assert self._runner is not None
            self._runner.close()

    def restart(self) -> None:
        """Start a worker on what is committed (after :meth:`crash`, or at first)."""
        if self._engine is not None:
            raise ConfigError("the Driver's worker is running: crash() it first")
        self._run(self._start())

    def crash(self) -> None:
        """End the worker as kill -9 would: nothing more is committed or written."""
        engine, self._engine = self._engine, None
        assert engine is not None, "the Driver's worker is not running"
        self._run(engine.close())

    async def _start(self) -> None:
        config = self.app.settings(**self._settings)
        edges = self.wrap(memory_edges(self.broker, self.clock))
        engine = Engine(config, self.app.topology(), edges)
        self.app.attach(engine)
        await engine.open()
        self._engine = engine
        self._arm_timers()
        await self._settle()

    async def _stop(self) -> None:
        assert self._engine is not None
        await self._settle()
        await self._engine.close()
        self._engine = None

    def _run(self, work: Any) -> Any:
        if self._runner is None:
            work.close()
            raise ConfigError("use the Driver in a with statement")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner.run(work)
        work.close()
        raise ConfigError("the Driver runs its own event loop: use it from a plain function")

    # -- in ----------------------------------------------------------------------------------

    def pipe(
        self,
        topic: str | Topic,
        *,
        key: Any = None,
        value: Any = None,
        timestamp: int = 0,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Put one record into a topic and let the app work on it.

        Args:
            key: encoded by the topic's key type; bytes are taken as they are.
            value: encoded by the topic's contract; bytes are taken as they are, anything that the
                contract's type is not is sent as JSON, None is a tombstone.
            timestamp: the record's, in ms.
        """
        self.pipe_many(topic, [(key, value, timestamp)], headers=headers, partition=partition)

    def pipe_many(
        self,
        topic: str | Topic,
        records: Any,
        *,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Put (key, value, timestamp) records into a topic all at once, then let the app work."""
        handle = self.topic(topic)
        for key, value, timestamp in records:
            self.broker.produce(
                handle.name,
                _raw_key(handle, key),
                _raw_value(handle, value),
                timestamp,
                headers,
                partition,
            )
        self.settle()

    def pipe_each(self, records: Iterable[Sent]) -> None:
        """Put records in one by one: each is worked off before the next, as by :meth:`pipe`."""
        self._run(self._pipe_each(records))

    async def _pipe_each(self, records: Iterable[Sent]) -> None:
        for record in records:
            self.broker.produce(*record)
            await self._settle()

    def settle(self) -> None:
        """Let the app work until nothing is left to do, and commit.

        Raises:
            TaskStopped: a task stands still; it is raised once, and the others go on.
        """
        self._run(self._settle())

    async def _settle(self) -> None:
        engine = self._engine
        assert engine is not None, "the Driver's worker is not running"
        inputs, order = engine.topology.inputs, self.broker.order
        async with asyncio.timeout(_STUCK_S):
            while True:
                await self._until_idle(engine)
                seen = len(order)
                if not await engine.commit_now(_STUCK_S):
                    continue  # it went back to the commit before
                for stopped in engine.assignment.parking.stopped():
                    if stopped not in self._told:
                        self._told.append(stopped)
                        raise stopped
                if not any(tp.topic in inputs for tp, _ in order[seen:]):
                    return  # nothing that came out goes in again

    async def _until_idle(self, engine: Engine) -> None:
        """Go round until no input is left and no agent is busy."""
        await engine.world.look()
        rounds = 0
        while True:
            await engine.step()
            tasks = engine.assignment.working()
            if self._calls:
                await asyncio.wait(self._calls)
                self._calls.clear()
            elif not engine.assignment.coming and all(map(_is_idle, tasks)):
                return
            rounds += 1
            if rounds % _ROUNDS_AWAKE == 0:
                await asyncio.sleep(_NAP_S)  # an agent awaits something real

    # -- out ---------------------------------------------------------------------------------

    def read(self, topic: str | Topic) -> list[Delivered]:
        """Return what has come out on a topic since the last read, over all partitions."""
        handle = self.topic(topic)
        start = self._seen.get(handle.name, 0)
        self._seen[handle.name] = len(self.broker.order)
        return [
            self._delivered(handle, tp, offset)
            for tp, offset in self.broker.order[start:]
            if tp.topic == handle.name
        ]

    def dead_letters(self, topic: str | Topic) -> list[Delivered]:
        """Return the dead letters of an input topic since the last look; values are raw bytes."""
        return self.read(self.topic(topic).dead_letters)

    def _delivered(self, handle: Topic, tp: TP, offset: int) -> Delivered:
        record = self.broker.logs[tp][offset]
        assert record is not None
        key, value, timestamp, headers = record
        return Delivered(
            tp.topic,
            tp.partition,
            offset,
            None if key is None else handle.key.decode(key),
            None if value is None else handle.contract.decode(value),
            timestamp,
            headers,
        )

    def raw(self, topic: str, partition: int = 0) -> list[Output]:
        """Return every record of a partition, as bytes."""
        return [record for record in self.broker.logs.get(TP(topic, partition), ()) if record]

    def table(self, name: Any) -> list[Any]:
        """Return a table's entries over all tasks, committed or not.

        (key, value) of a keyed table; (key, start, end, value) of a windowed or session table.
        """
        name = getattr(name, "name", name)
        assert self._engine is not None, "the Driver's worker is not running"
        rows: list[Any] = []
        for task in self._engine.assignment.working():
            if name in task.tables:
                rows.extend(task.tables[name].items())
        return rows

    def topic(self, topic: str | Topic) -> Topic:
        """Return a topic's handle; one the app does not know carries raw bytes."""
        return topic if isinstance(topic, Topic) else self.app.topic_named(topic)

    # -- time --------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Move the clock; timers and deadlines that come due on the way are met in order."""
        self._run(self._advance(self.clock.now_ms() + round(seconds * 1000)))

    async def _advance(self, until: int) -> None:
        while (due := self.clock.next_call_ms()) is not None and due <= until:
            self.clock.move_to(int(due))
            await self._settle()
        self.clock.move_to(until)
        await self._settle()

    def _arm_timers(self) -> None:
        for interval_ms, call in self.app.timers:
            self._arm(interval_ms, call)

    def _arm(self, interval_ms: int, call: Any) -> None:
        engine = self._engine

        def fire() -> None:
            if self._engine is engine:
                self._calls.append(asyncio.get_running_loop().create_task(call()))
                self._arm(interval_ms, call)

        self.clock.call_later(interval_ms, fire)

    def close_windows(self) -> None:
        """End the input: every open window and session closes and is emitted."""
        for name in list(self._require().topology.inputs):
            for number in range(self.broker.counts[name]):
                self.broker.append(TP(name, number), (None, None, 0, ((END_MARK, b""),)))
        self.settle()

    def _require(self) -> Engine:
        assert self._engine is not None, "the Driver's worker is not running"
        return self._engine


def _is_idle(task: Task) -> bool:
    """Say whether a task has nothing more to do."""
    caught_up = all(each.caught_up() for each in task.inbox.inputs.values())
    return task.state is not State.FAILED and task.idle() and caught_up


def _raw_key(topic: Topic, key: Any) -> bytes | None:
    return topic.encode_key(key)


def _raw_value(topic: Topic, value: Any) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    kind = topic.contract.value_type
    if kind in {str, bytes} or (isinstance(kind, type) and isinstance(value, kind)):
        return topic.encode_value(value)
    return msgspec.json.encode(value)
