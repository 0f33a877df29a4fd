"""Lookups in something outside: a service, a database. ``stream.lookup(fn, on=...)``.

Calls are made ahead of the agent, as ``map_async`` makes them (:mod:`engine.ahead`), so the order
stays and an exception is its own event's. What they answer is kept for a while, and events that ask
for the same key while it is being asked for share one call.

What a service answers is of the moment: an event that is done again, after a crash or a rollback,
may get another answer than the first time. What is committed is committed once all the same.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.ahead import CONCURRENCY_MAX, Outcome, is_async
from engine.context import current
from engine.cpu import fn_name
from engine.errors import ConfigError
from engine.feed import TICK
from engine.windowed import milliseconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from engine.clock import Clock
    from engine.feed import Feed
    from engine.table import Seconds

SIZE_MAX = 10_000_000


class Answers:
    """What was answered lately, by key: the least recently used go first, old ones count as none.

    Args:
        ttl_ms: how long an answer counts, from when it came.
        size: so many are kept, at most.
    """

    __slots__ = ("_clock", "_kept", "_size", "_ttl_ms")

    def __init__(self, clock: Clock, ttl_ms: float, size: int) -> None:
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._size = size
        self._kept: dict[Any, tuple[float, Any]] = {}  # in the order of use

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Any) -> tuple[Any] | None:
        """Return the answer that is kept for a key, in a tuple; None: there is none."""
        entry = self._kept.pop(key, None)
        if entry is None or entry[0] <= self._clock.elapsed_ms():
            return None
        self._kept[key] = entry
        return (entry[1],)

    def put(self, key: Any, answer: Any) -> None:
        """Keep an answer."""
        self._kept.pop(key, None)
        if self._size and self._ttl_ms > 0:
            if len(self._kept) >= self._size:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._clock.elapsed_ms() + self._ttl_ms, answer


class LookupCalls:
    """A call for each key that no answer is kept for; see :class:`engine.ahead.Calls`.

    It is called for pairs of a key and a value, and answers with pairs of the value and what was
    found for its key; for no key (None) nothing is, without a call.

    Raises:
        ConfigError: ``fn`` is no coroutine function, or a number is out of its bounds.
    """

    def __init__(
        self,
        fn: Callable[[Any], Any],
        *,
        ttl: Seconds,
        size: int,
        concurrency: int,
        timeout: float | None,
    ) -> None:
        name = f"lookup({fn_name(fn)})"
        if not is_async(fn):
            raise ConfigError(f"{name}: it takes a function made with async def")
        if not 1 <= concurrency <= CONCURRENCY_MAX:
            raise ConfigError(f"{name}: concurrency={concurrency}: 1 to {CONCURRENCY_MAX} calls")
        if timeout is not None and timeout <= 0:
            raise ConfigError(f"{name}: timeout={timeout}: seconds, more than 0")
        ttl_ms = milliseconds(ttl)
        if ttl_ms < 0 or not 0 <= size <= SIZE_MAX:
            raise ConfigError(f"{name}: ttl={ttl}, size={size}: 0 s or more, 0 to {SIZE_MAX} keys")
        self.most = concurrency
        self._bounds = ttl_ms, size
        self._fn = fn
        self._timeout_s = timeout
        self._feed: Feed
        self._answers: Answers
        self._asked: dict[Any, asyncio.Task[Any]] = {}

    async def asked_for(
        self, feed: Feed, events: AsyncIterator[Any], key_of: Callable[[Any], Any]
    ) -> AsyncIterator[Any]:
        """Yield (key, value) of each event that has a value; another iteration keeps the answers.

        What ``key_of`` raises, it raises with its event in hand, and so does a key that is none.
        """
        self._asked = {}
        self._feed = feed
        if not hasattr(self, "_answers"):
            self._answers = Answers(feed.clock, *self._bounds)
        async for value in events:
            if value is TICK:
                yield value
            elif value is not None:
                key = key_of(value)
                hash(key)
                yield key, value

    def size(self, left: int) -> int:
        """Return 1: each event waits for a call of its own, or for one that it shares."""
        return 1

    def start(self, values: list[Any]) -> asyncio.Future[Outcome]:
        """Find what belongs to one event's key."""
        key, value = values[0]
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        kept = (None,) if key is None else self._answers.get(key)
        if kept is not None:
            outcome.set_result(([(value, kept[0])], None))
            return outcome
        call = self._asked.get(key)
        if call is None:
            call = asyncio.get_running_loop().create_task(self._ask(key), name="lookup")
            self._asked[key] = call
            self._feed.own(call)
            call.add_done_callback(partial(self._answered, key))
        call.add_done_callback(partial(_pass_on, outcome, value))
        return outcome

    async def _ask(self, key: Any) -> Any:
        current.set(None)  # it runs beside the agent, which may have another event in hand
        async with asyncio.timeout(self._timeout_s):
            return await self._fn(key)

    def _answered(self, key: Any, call: asyncio.Task[Any]) -> None:
        self._asked.pop(key, None)
        if not call.cancelled() and call.exception() is None:
            self._answers.put(key, call.result())


def _pass_on(outcome: asyncio.Future[Outcome], value: Any, call: asyncio.Task[Any]) -> None:
    """Tell an event what a call said that it waits for, maybe with others."""
    if outcome.done():  # cancelled: its agent has stopped
        return
    if call.cancelled():
        outcome.cancel()
        return
    error = call.exception()
    outcome.set_result(([], error) if error is not None else ([(value, call.result())], None))
