"""Calls made ahead of the agent: what ``map_async`` and ``map_cpu`` have in common.

A view reads the events of a run to its end, calls for several of them at a time, and yields the
results one by one, each with its own event in hand. The order stays, and so does what holds for
every event: it is done when the agent asks for the next one, an exception is its own, and a commit
may be cut whenever the agent is between two events, which it is while it waits for a result. What
was read ahead and not yielded is not done: the position stays before it, and after a rollback it is
called for again.

At most so many events lie between the one in hand and the last one called for, results that wait
for their turn included (as in Flink's ordered asynchronous I/O).
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from engine.context import current
from engine.cpu import fn_name
from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.feed import Feed

CONCURRENCY_MAX = 10_000

Outcome = tuple[list[Any], BaseException | None]
"""The results of the first events of a call, and what the one after them raised."""


class Calls(Protocol):
    """How the events are called for."""

    most: int
    """So many calls are under way at a time."""

    def size(self, left: int) -> int:
        """Return for how many events the next call is, of ``left`` that have none yet."""
        ...

    def start(self, values: list[Any]) -> asyncio.Future[Outcome]:
        """Call for some events."""
        ...


class AsyncCalls:
    """A call of a coroutine function for each event.

    Raises:
        ConfigError: it is none, or a number is out of its bounds.
    """

    def __init__(self, fn: Callable[[Any], Any], concurrency: int, timeout_s: float | None) -> None:
        if not is_async(fn):
            raise ConfigError(
                f"map_async({fn_name(fn)}): it takes a function made with async def; one that "
                "computes belongs into map_cpu, one that blocks into "
                "`await asyncio.to_thread(...)` inside such a function"
            )
        if not 1 <= concurrency <= CONCURRENCY_MAX:
            raise ConfigError(f"map_async(concurrency={concurrency}): 1 to {CONCURRENCY_MAX} calls")
        if timeout_s is not None and timeout_s <= 0:
            raise ConfigError(f"map_async(timeout={timeout_s}): seconds, more than 0")
        self.most = concurrency
        self._fn = fn
        self._timeout_s = timeout_s

    def size(self, left: int) -> int:
        """Return 1: each event has a call of its own."""
        return 1

    def start(self, values: list[Any]) -> asyncio.Future[Outcome]:
        """Call the function for one event."""
        return asyncio.get_running_loop().create_task(self._call(values[0]), name="map_async")

    async def _call(self, value: Any) -> Outcome:
        current.set(None)  # it runs beside the agent, which may have another event in hand
        try:
            async with asyncio.timeout(self._timeout_s):
                return [await self._fn(value)], None
        except Exception as error:  # noqa: BLE001  user code may raise anything: it is the event's
            return [], error


class Ahead:
    """The events of one run that were read and not yet yielded; true while there are any."""

    def __init__(self, feed: Feed, calls: Calls) -> None:
        self._feed = feed
        self._calls = calls
        self._waiting: deque[tuple[int, Any]] = deque()  # not called for: index in the run, value
        self._called: deque[tuple[list[int], asyncio.Future[Outcome]]] = deque()
        self._results: deque[tuple[int, Any]] = deque()

    def __bool__(self) -> bool:
        return bool(self._results or self._called or self._waiting)

    def read(self, value: Any) -> None:
        """Take an event in hand, ahead of its turn."""
        self._feed.look_ahead()
        self._waiting.append((self._feed.context.index, value))

    async def next(self) -> Any:
        """Return the next result, with its event in hand; raise what its call raised."""
        self._start()
        if self._results:
            await self._feed.turn_to(self._results[0][0])
        else:
            await self._receive()
        _, result = self._results.popleft()
        if type(result) is _Raised:
            raise result.error
        return result

    async def _receive(self) -> None:
        """Wait for the call that is next in order."""
        indexes, call = self._called[0]
        await self._feed.turn_to(indexes[0], call)
        self._called.popleft()
        self._start()
        results: list[Any] = []
        error: BaseException | None = RuntimeError("the call was cancelled from inside")
        if not call.cancelled():  # where we do that, nobody waits
            results, error = call.result()
        self._results.extend(zip(indexes, results, strict=False))
        if error is not None:  # what follows is called for again, after the rollback
            self._results.append((indexes[len(results)], _Raised(error)))

    def _start(self) -> None:
        """Call for more events, as far ahead as may be."""
        calls, waiting = self._calls, self._waiting
        while waiting and len(self._called) < calls.most:
            part = [waiting.popleft() for _ in range(min(len(waiting), calls.size(len(waiting))))]
            call = calls.start([value for _, value in part])
            self._feed.own(call)
            self._called.append(([index for index, _ in part], call))


class _Raised:
    """What a call raised, in its place among the results."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def is_async(fn: Any) -> bool:
    """Say whether calling it gives a coroutine."""
    while isinstance(fn, partial):
        fn = fn.func
    called = getattr(type(fn), "__call__", None)  # noqa: B004  the class's: a Struct's instance may have one
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(called)
