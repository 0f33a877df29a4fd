"""Calls what waits for time in one task: the timers of its tables, and its punctuators.

Event time is that of the agents: each has a clock, which shows the largest event time of the events
that it has taken. A table's timers and a punctuator by stream time go by the latest clock of the
agents that use the table (of a punctuator: one of its tables, or its topic). So when a timer fires
depends on the events before it and their order, and not on how they were cut into batches: an agent
whose event has made one due gets the next one after it has fired.

Nothing is called while an agent is in the middle of an event, and no commit is cut while something
is called. What is called has the time that it was called for as its event time: sends carry it, and
windows that it updates go by it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from engine.context import Context, current
from engine.errors import AgentFailed
from engine.record import TP, Run
from engine.stages import charged
from engine.timers import Punctuator, TableTimers
from tables.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from engine.agent import Runner
    from engine.clock import Cancellable, Clock
    from engine.topology import Node, SubTopology
    from tables.timers import TimerPartition


class TimerCalls:
    """The timers of one table in a task. ``stream_time``, ``next_ms`` as of the partition."""

    def __init__(self, handle: TableTimers, partition: TimerPartition) -> None:
        self.name = handle.name
        self.fun = handle.fun
        self.partition = partition
        self._decode = handle.key.decode

    def reach(self, time_ms: int) -> bool:
        """Note that a clock shows ``time_ms``; say whether something is due."""
        partition = self.partition
        partition.stream_time = max(partition.stream_time, time_ms)
        return partition.stream_time >= partition.next_ms

    def due_ms(self) -> int:
        """Return the time of the first that is due; NEVER of none."""
        partition = self.partition
        return partition.next_ms if partition.stream_time >= partition.next_ms else NEVER

    def take(self) -> tuple[int, bytes | None, tuple[Any, ...]]:
        """Return the time and raw key of what is due, and what its function is called with."""
        time_ms, key = self.partition.pop()
        return time_ms, key, (self._decode(key), time_ms)


class PunctuatorCalls:
    """One punctuator by stream time in a task.

    It is first called with the first event, then whenever its clock passes a multiple of its
    interval; if it passes several at once, once: as in Kafka Streams. Unlike there, a restart
    changes nothing: both times are kept with the committed positions.
    """

    def __init__(self, punctuator: Punctuator) -> None:
        self.name = punctuator.name
        self.fun = punctuator.fun
        self.every_ms = punctuator.every_ms
        self.stream_time = -NEVER
        self.next_ms = -NEVER + 1

    def reach(self, time_ms: int) -> bool:
        """See :class:`TimerCalls`."""
        self.stream_time = max(self.stream_time, time_ms)
        return self.stream_time >= self.next_ms

    def due_ms(self) -> int:
        """See :class:`TimerCalls`."""
        return self.next_ms if self.stream_time >= self.next_ms else NEVER

    def take(self) -> tuple[int, bytes | None, tuple[Any, ...]]:
        """See :class:`TimerCalls`."""
        now = self.stream_time
        self.next_ms = now // self.every_ms * self.every_ms + self.every_ms
        return now, None, (now,)


class WallClockCalls:
    """One punctuator by the wall clock in a task; what it misses while the task is busy is one."""

    def __init__(self, punctuator: Punctuator, clock: Clock, wake: Callable[[], None]) -> None:
        self.name = punctuator.name
        self.fun = punctuator.fun
        self._every_ms = punctuator.every_ms
        self._clock = clock
        self._wake = wake
        self._due = False
        self._next: Cancellable | None = None

    def arm(self) -> None:
        """Be due an interval from now."""
        self._next = self._clock.call_later(self._every_ms, self._ring)

    def _ring(self) -> None:
        self.arm()
        self._due = True
        self._wake()

    def stop(self) -> None:
        """Be due no more."""
        if self._next is not None:
            self._next.cancel()

    def due_ms(self) -> int:
        """Return a time before all others if it is due; else NEVER."""
        return -NEVER if self._due else NEVER

    def take(self) -> tuple[int, bytes | None, tuple[Any, ...]]:
        """See :class:`TimerCalls`; the time is the wall clock's."""
        self._due = False
        now = self._clock.now_ms()
        return now, None, (now,)


class AgentClock:
    """What goes by the events of one agent."""

    __slots__ = ("_calls", "call")

    def __init__(
        self, calls: list[TimerCalls | PunctuatorCalls], call: Callable[[], Awaitable[bool]]
    ) -> None:
        self._calls = calls
        self.call = call  # see Timekeeper.call

    def reach(self, time_ms: int) -> bool:
        """Note that an event of this time was taken; say whether something is due."""
        due = False
        for each in self._calls:
            due |= each.reach(time_ms)
        return due

    def is_due(self) -> bool:
        """Say whether the agent's next event has to wait."""
        return any(each.due_ms() < NEVER for each in self._calls)


class Timekeeper:
    """One task's.

    Args:
        context: the place of what is called: the task's tables and outbox.
        ready: whether all agents of the task are between two events, and may stay there.
        went_on: called when everything that was due has been called.
        failed: called with what a function raised.

    Attributes:
        busy: something is being called.
    """

    def __init__(
        self,
        context: Context,
        clock: Clock,
        *,
        ready: Callable[[], bool],
        wake: Callable[[], None],
        went_on: Callable[[], None],
        failed: Callable[[AgentFailed], None],
    ) -> None:
        self.busy = False
        self._context = context
        self._clock = clock
        self._wake = wake
        self._ready = ready
        self._went_on = went_on
        self._failed = failed
        self._work: asyncio.Task[None] | None = None
        self._timers: dict[str, TimerCalls] = {}
        self._punctuators: dict[Punctuator, PunctuatorCalls] = {}
        self._bells: list[WallClockCalls] = []
        self._calls: list[TimerCalls | PunctuatorCalls | WallClockCalls] = []

    # -- life --------------------------------------------------------------------------------

    def start(self, part: SubTopology, runners: Sequence[Runner]) -> None:
        """Begin: the task's tables are open; ``runners`` are its agents, as in ``part``."""
        for table in part.tables:
            if isinstance(table, TableTimers):
                self._timers[table.name] = TimerCalls(table, self._context.tables[table.name])
        for punctuator in part.punctuators:
            if punctuator.by_wall_clock:
                self._bells.append(WallClockCalls(punctuator, self._clock, self._wake))
            else:
                self._punctuators[punctuator] = PunctuatorCalls(punctuator)
        for bell in self._bells:
            bell.arm()
        self._calls += [*self._bells, *self._timers.values(), *self._punctuators.values()]
        for runner, node in zip(runners, part.nodes, strict=True):
            clock = self._clock_of(node)
            if clock is not None:
                runner.feed.keep_time(clock)

    def resume(self, times: Mapping[str, int]) -> None:
        """Go on from times that were kept with the committed positions."""
        for calls in self._punctuators.values():
            calls.stream_time = times.get(f"{calls.name}!time", calls.stream_time)
            calls.next_ms = times.get(f"{calls.name}!next", calls.next_ms)

    async def stop(self) -> None:
        """Call nothing more; what is being called is cancelled."""
        for bell in self._bells:
            bell.stop()
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    def times(self) -> dict[str, int]:
        """Return what is to be kept with the positions."""
        kept: dict[str, int] = {}
        for calls in self._punctuators.values():
            if calls.stream_time > -NEVER:
                kept[f"{calls.name}!time"] = calls.stream_time
                kept[f"{calls.name}!next"] = calls.next_ms
        return kept

    # -- clocks ------------------------------------------------------------------------------

    def _clock_of(self, node: Node) -> AgentClock | None:
        """Return the clock of an agent; None if nothing goes by it."""
        used = {table.name for table in node.tables}
        read = {topic.name for topic in node.inputs}
        calls: list[TimerCalls | PunctuatorCalls] = [
            calls for name, calls in self._timers.items() if name in used
        ]
        for punctuator, own in self._punctuators.items():
            channel = punctuator.channel
            if used & {table.name for table in punctuator.tables} or (
                channel is not None and channel.name in read
            ):
                calls.append(own)
        return AgentClock(calls, self.call) if calls else None

    def is_due(self) -> bool:
        """Say whether something waits to be called."""
        return any(each.due_ms() < NEVER for each in self._calls)

    def at_rest(self) -> bool:
        """Say whether nothing is being called, and nothing waits to be."""
        return not self.busy and not self.is_due()

    # -- calls -------------------------------------------------------------------------------

    def look(self) -> None:
        """Begin to call what is due, if the agents are between two events."""
        if not self.busy and self.is_due() and self._ready():
            self.busy = True
            self._work = asyncio.get_running_loop().create_task(charged("agent", self._work_off))

    async def _work_off(self) -> None:
        await self._call_all()
        self._wake()

    async def call(self) -> bool:
        """Call what is due right here, between two events of the agent that asks for it.

        Returns whether that is done: not if another agent is in the middle of an event, or a
        function has failed. No task is made and the loop does not come around, as it does for
        :meth:`look`.
        """
        if self.busy or not self._ready():
            return False
        self.busy = True
        return await self._call_all()

    async def _call_all(self) -> bool:
        """Call everything that is due, by time; also what becomes due meanwhile."""
        place_before = current.set(self._context)
        failed, name, place = True, "", ""
        try:
            while (first := min(self._calls, key=lambda each: each.due_ms())).due_ms() < NEVER:
                name = first.name
                time_ms, key, arguments = first.take()
                place = f"its call for {time_ms}"
                self._context.run, self._context.index = _moment(name, time_ms, key), 0
                called = first.fun(*arguments)
                if inspect.isawaitable(called):
                    await called
            failed = False
        except Exception as error:  # noqa: BLE001  user code may raise anything; the task decides
            self._failed(AgentFailed(name, place, error))
        finally:
            current.reset(place_before)
        self.busy = False
        self._went_on()
        return not failed


def _moment(name: str, time_ms: int, key: bytes | None) -> Run:
    """Return what stands for the event in hand while a function is called."""
    return Run(TP(name, -1), [None], [time_ms], [-1], [time_ms], [key], [None], [()], next_offset=0)
