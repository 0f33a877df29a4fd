"""An agent: the coroutine a user wrote, what it reads, and where its results go."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from engine.context import Context, current
from engine.errors import AgentFailed, ConfigError
from engine.feed import Feed
from engine.halves import AfterMove, BeforeMove
from engine.policy import OnError, policy_of
from engine.probe import Probe, ProbedError, Wanted
from engine.stages import charged
from engine.stream import Stream
from engine.topic import Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from engine.clock import Clock
    from engine.move import Move
    from engine.operator import Operator
    from engine.outbox import Outbox

Stage = Literal["whole", "before", "after"]
"""Which part of an agent runs: all of it, or the part before or after its ``group_by``."""


class Agent:
    """What ``@app.agent`` makes of a coroutine function. Calling it still calls the function.

    Args:
        topics: what it reads; several topics must be co-partitioned.
        sinks: topics, other agents, or functions (sync or async) that get each yielded value.
        tables: tables it uses that cannot be seen in its code.
        operator: its stream is what comes out of this one.
        calls: functions that it calls, and that its code does not name.
        on_error: what becomes of an event on which it raises, after ``retries`` more tries:
            ``dead_letter``, ``skip``, ``stop`` (its task), or a policy that says more
            (:func:`engine.policy.retry`).
    """

    def __init__(  # noqa: PLR0913
        self,
        fun: Callable[..., Any],
        topics: Sequence[Topic],
        *,
        name: str | None = None,
        sinks: Sequence[Any] = (),
        tables: Sequence[Any] = (),
        operator: Operator | None = None,
        calls: Sequence[Callable[..., Any]] = (),
        on_error: OnError = "dead_letter",
        retries: int = 0,
    ) -> None:
        self.fun = fun if operator is None else _behind(operator, fun)
        self.name = name or fun.__qualname__.rpartition(".")[2]
        self.topics = tuple(topics)
        self.sinks = tuple(sinks)
        self.tables = tuple(tables)
        self.calls = tuple(calls)
        self.policy = policy_of(on_error, retries)
        self.operators: dict[str, Operator] = {}  # those that were made, by the name in the agent
        self._wanted: dict[str, Wanted] = {}
        self._probed = False
        self._move: Move | None = None
        self.__doc__ = fun.__doc__
        self.__wrapped__ = fun

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were not decorated."""
        return self.fun(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Agent {self.name} on {', '.join(topic.name for topic in self.topics)}>"

    @property
    def channel(self) -> Topic:
        """The topic the agent reads (the first, if several)."""
        return self.topics[0]

    async def send(self, *, key: Any = None, value: Any = None, **options: Any) -> None:
        """Send the agent a value, through its topic."""
        await self.channel.send(key=key, value=value, **options)

    async def cast(self, value: Any = None, *, key: Any = None, **options: Any) -> None:
        """Send the agent a value and expect nothing back."""
        await self.channel.send(key=key, value=value, **options)

    def find_move(self) -> Move | None:
        """Run the agent up to its loop, once, on a probe, to learn whether it re-keys."""
        if not self._probed:
            self._move = self._probe()
            self._probed = True
        return self._move

    def operators_on(self, topic: Topic, *, moved: bool) -> tuple[Operator, ...]:
        """Return the operators that the agent asks for, before its move or behind it.

        Args:
            topic: what its stream reads there. An operator is made at the first call.
        """
        self.find_move()
        found = []
        for name, wanted in self._wanted.items():
            if wanted.moved is moved:
                if name not in self.operators:
                    self.operators[name] = wanted.make(f"{self.name}-{name}", topic)
                found.append(self.operators[name])
        return tuple(found)

    def _probe(self) -> Move | None:
        probe = Probe()
        self._wanted = probe.wanted
        result = self.fun(probe)
        step = result.__anext__() if inspect.isasyncgen(result) else result
        try:
            step.send(None)
        except (ProbedError, StopIteration, StopAsyncIteration):
            return probe.move
        except ConfigError:
            raise
        except Exception:  # noqa: BLE001  what its first lines need is not there yet
            return probe.move
        finally:
            if not inspect.isasyncgen(result):
                result.close()
        return probe.move  # it awaits something before its loop: no more can be learned


def _behind(operator: Operator, fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the operator before it."""

    @functools.wraps(fun)
    def behind(stream: Stream[Any]) -> Any:
        return fun(stream.apply(operator))

    return behind


def functions_in(sinks: Sequence[Any]) -> list[Callable[[Any], Any]]:
    """Return the sinks that are plain functions."""
    found = []
    for sink in sinks:
        if isinstance(sink, Topic | Agent):
            continue
        if not callable(sink):
            raise ConfigError(f"sink {sink!r} is neither a topic, an agent nor a function")
        found.append(sink)
    return found


class Runner:
    """One agent at work for one task: its coroutine, its feed, its emissions.

    Args:
        failed: called once, with this runner and the error, when the agent raises.
        quiet: called whenever the agent comes to a boundary.
    """

    def __init__(  # noqa: PLR0913
        self,
        agent: Agent,
        *,
        stage: Stage,
        context: Context,
        clock: Clock,
        quiet: Callable[[], None],
        failed: Callable[[Runner, AgentFailed], None],
        moved: Topic | None = None,
        inputs: Sequence[Topic],
    ) -> None:
        self.agent = agent
        self.name = agent.name if stage != "before" else f"{agent.name}.move"
        self.context = context
        self.feed = Feed(context, clock, quiet)
        self.feed.operators = agent.operators
        self._inputs = inputs
        self._stage = stage
        self._failed = failed
        self._moved = moved
        self._task: asyncio.Task[None] | None = None
        self._lanes = [
            (sink if isinstance(sink, Topic) else sink.channel, context.outbox)
            for sink in agent.sinks
            if isinstance(sink, Topic | Agent)
        ]
        self._calls = functions_in(agent.sinks)

    def start(self) -> None:
        """Begin to run the coroutine."""
        self._task = asyncio.get_running_loop().create_task(
            charged("agent", self._run), name=self.name
        )

    async def stop(self) -> None:
        """Cancel the coroutine and wait until it is gone."""
        self.feed.no_tick()
        self.feed.drop_calls()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _stream(self) -> Stream[Any]:
        inputs = self._inputs
        decode_key = inputs[0].key.decode if len(inputs) == 1 else self._decode_key
        if self._stage == "whole":
            return Stream(self.feed, decode_key)
        if self._stage == "after":
            return AfterMove(self.feed, decode_key)
        stream = BeforeMove(self.feed, decode_key)
        stream.forward = self._forward
        return stream

    def _decode_key(self, raw: bytes) -> Any:
        """Decode a key as the topic does that it came from."""
        assert self.context.run is not None
        name = self.context.run.tp.topic
        return next(topic for topic in self._inputs if topic.name == name).key.decode(raw)

    def _forward(self, value: Any, move: Move) -> None:
        """Send a record to the topic in between, with its own time and headers."""
        moved, context = self._moved, self.context
        assert moved is not None
        assert context.run is not None
        run, i = context.run, context.index
        key = run.keys[i] if move.key is None else moved.encode_key(move.key(value))
        lane = context.outbox.lane(moved.name)
        partition = lane.partitioner[key] if key is not None else 0
        lane.put(
            key, moved.encode_value(value), run.timestamps[i], run.headers[i], partition=partition
        )

    async def _run(self) -> None:
        current.set(self.context)
        try:
            while True:  # an agent that leaves its loop is started again with the next event
                result = self.agent.fun(self._stream())
                if inspect.isasyncgen(result):
                    await self._collect(result)
                else:
                    await result
                await asyncio.sleep(0)  # once a restart: one that ends at once must not spin
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  user code may raise anything; the task decides
            self._failed(self, AgentFailed(self.agent.name, self.context.place(), error))

    async def _collect(self, results: AsyncIterator[Any]) -> None:
        """Give each yielded value to the sinks."""
        if len(self._lanes) == 1 and not self._calls:
            topic, outbox = self._lanes[0]
            await self._emit_all(results, topic, outbox)
            return
        async for value in results:
            for topic, _ in self._lanes:
                self.emit(topic, value)
            for call in self._calls:
                answer = call(value)
                if inspect.isawaitable(answer):
                    await answer

    async def _emit_all(self, results: AsyncIterator[Any], topic: Topic, outbox: Outbox) -> None:
        """Do what :meth:`_collect` does for the usual case: one topic, looked up once."""
        context = self.context
        lane = outbox.lane(topic.name)
        home, partitioner, rows = lane.home, lane.partitioner, lane.rows
        encode, encode_key = topic.contract.encode, topic.encode_key
        key_field = topic.contract.key_field
        async for value in results:
            run, i = context.run, context.index
            assert run is not None
            source_key = run.keys[i]
            raw = value if value is None or type(value) is bytes else encode(value)
            own = key_field is None or value is None
            key = source_key if own else encode_key(key_field(value))  # type: ignore[misc]
            if home is not None and (key is None or key == source_key):
                partition = home
            else:
                partition = 0 if key is None else partitioner[key]
            rows[partition].append((key, raw, run.times[i], ()))

    def emit(self, topic: Topic, value: Any) -> None:
        """Put one value into the outbox, keyed as the topic's contract says."""
        context = self.context
        key_field = topic.contract.key_field
        source_key = context.source_key()
        key = source_key
        if key_field is not None and value is not None:
            key = topic.encode_key(key_field(value))
        context.outbox.lane(topic.name).put(
            key, topic.encode_value(value), context.time_ms(), source_key=source_key
        )
