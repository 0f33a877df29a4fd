"""The hand-over of events between a task and an agent's coroutine.

The engine gives the feed a whole run of decoded events; the agent sees one at a time. Asking for
the next event *is* the acknowledgement of the one before: nothing else is, and nothing is
acknowledged by failing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.clock import Cancellable, Clock
    from engine.context import Context
    from engine.operator import Operator
    from engine.record import TP, Run
    from engine.timekeeper import AgentClock

TICK: Any = object()
"""Goes through the views of a stream when a deadline passes on a quiet feed, and to views that look
ahead (:mod:`engine.ahead`) at the end of each run."""


class Feed:
    """The hand-over between a task and one agent's coroutine.

    The task calls :meth:`give`; the agent's iteration takes the events. ``quiet`` is called each
    time the agent comes to a boundary: it has asked for an event and is not in the middle of one.
    """

    __slots__ = (
        "_ahead", "_between", "_calls", "_done", "_due", "_held", "_hold", "_looking", "_open",
        "_resume", "_run", "_tick", "_times", "_waiter", "_whole", "busy", "clock", "context",
        "ended", "handed_over", "marking", "operators", "overdue", "quiet", "singly", "spoiled",
    )  # fmt: skip

    def __init__(self, context: Context, clock: Clock, quiet: Callable[[], None]) -> None:
        self.context = context
        self.quiet = quiet
        self.busy = False
        self.handed_over = False  # what is held was given to the agent: leaving the loop ends it
        self.singly: dict[TP, tuple[int, int]] = {}  # between which ``take`` yields them one by one
        self.marking = False  # the next iteration is to mark the ends of runs
        self.ended: set[str] = set()  # the topics of which an end-of-input mark has come
        self.operators: Mapping[str, Operator] = {}  # those that the agent's views have made
        self.spoiled: set[tuple[TP, int]] = set()  # events of which the agent sees nothing
        self.overdue = False  # a deadline has passed, and nobody has heeded it yet
        self._ahead: dict[TP, int] = {}  # read, and not yet yielded by a view that looks ahead
        self._between = False  # such a view waits for a result, between two events
        self._calls: set[asyncio.Future[Any]] = set()  # what it has under way
        self._whole = False  # runs are taken whole
        self.clock = clock
        self._times: AgentClock | None = None  # what goes by the times of the events
        self._held = False  # no event is to be begun
        self._looking = False  # between two events, see whether to go on
        self._done: dict[TP, int] = {}
        self._hold: dict[TP, int] = {}
        self._open = False  # an iteration is inside a run
        self._run: Run | None = None
        self._waiter: asyncio.Future[Any] | None = None
        self._resume: asyncio.Future[None] | None = None
        self._tick: Cancellable | None = None
        self._due = False  # the tick came while the feed was not waiting

    def keep_time(self, times: AgentClock) -> None:
        """Tell a clock each event's time, and wait between two events while something is due."""
        self._times, self._looking = times, True

    def give(self, run: Run) -> None:
        """Hand the agent its next events; only when it is not busy."""
        assert not self.busy, "a feed takes one run at a time"
        self.busy = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(run)
            self._waiter = None
        else:
            self._run = run

    def positions(self) -> dict[TP, int]:
        """Return, per input, the offset below which every event has been dealt with."""
        held = dict(self._hold)
        for tp, offset in self._ahead.items():
            held[tp] = min(offset, held.get(tp, offset))
        return {**self._done, **held}

    def resume_at(self, tp: TP, offset: int) -> None:
        """Go on from ``offset`` at least: what lies below was dealt with before."""
        self._done[tp] = max(offset, self._done.get(tp, 0))

    async def values(self) -> AsyncIterator[Any]:
        """Yield the events, one run after the other."""
        context = self.context
        marking, self.marking = self.marking, False
        self.drop_calls()
        self._ahead.clear()
        index = context.index + 1 if self._open else 0  # an earlier iteration was left half-way
        while True:
            if not self._open:
                run = await self._next_run()
                if run is TICK:
                    yield TICK
                    continue
                context.run, index, self._open = run, 0, True
            run = context.run
            assert run is not None
            for event in run.events[index:] if index else run.events:
                context.index = index
                yield event
                index += 1
                if self._looking:
                    await self._look(run, index)
            if marking:
                if run.ends:
                    self.ended.add(run.tp.topic)
                yield TICK
            self._done[run.tp] = run.next_offset
            self._open = self.busy = False

    async def runs(self) -> AsyncIterator[Run]:
        """Yield whole runs (``stream.batches()``)."""
        context = self.context
        self._whole = True
        while True:
            if self._open:  # an earlier iteration was left: what it left of its run
                assert context.run is not None
                run = context.run.part(context.index + 1, len(context.run))
            else:
                run = await self._next_run()
                if run is TICK:
                    continue
            if len(run):
                context.run, context.index, self._open = run, len(run) - 1, True
                yield run
                if self._times is not None:
                    self._times.reach(max(run.times))
            self._done[run.tp] = run.next_offset
            self._open = self.busy = False

    async def _next_run(self) -> Any:
        if self._due:
            self._due, self.busy = False, True
            return TICK
        if self._run is not None:
            run, self._run = self._run, None
            return run
        self._waiter = asyncio.get_running_loop().create_future()
        self.busy = False
        self.quiet()
        return await self._waiter

    async def _look(self, run: Run, index: int) -> None:
        """Stand still between two events while a commit is cut here, or something is due."""
        times = self._times
        due = times is not None and times.reach(run.times[index - 1])
        if index < len(run.offsets) and (due or self._held):
            self._done[run.tp] = run.offsets[index]
            if times is not None and due and not self._held:
                self._between = True
                called = await times.call()
                self._between = False
                if called and not self._held:
                    return
            await self._stand_still()
            while times is not None and times.is_due():  # it was a commit that has ended
                await self._stand_still()

    async def _stand_still(self) -> None:
        self._resume = asyncio.get_running_loop().create_future()
        self.quiet()
        await self._resume

    # -- looking ahead -----------------------------------------------------------------------

    def look_ahead(self) -> None:
        """Keep the position at the event in hand, which is read before its turn."""
        run = self.context.run
        assert run is not None
        self._ahead.setdefault(run.tp, run.offsets[self.context.index])

    async def turn_to(self, index: int, call: asyncio.Future[Any] | None = None) -> None:
        """Make an event of the run the one in hand, once the call made for it has ended.

        Until then the agent is between two events, so a commit may be cut meanwhile.
        """
        run = self.context.run
        assert run is not None
        self._ahead[run.tp] = run.offsets[index]
        if call is not None and not call.done():
            self._between = True
            if self._held:
                self.quiet()
            await asyncio.wait([call])
            self._between = False
        if self._held:
            await self._stand_still()
        self.context.index = index

    def caught_up(self) -> None:
        """All that was read ahead of its turn has been worked on."""
        self._ahead.clear()

    def own(self, call: asyncio.Future[Any]) -> None:
        """Cancel a call that is under way when the agent stops, or reads the event again."""
        self._calls.add(call)
        call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # it may be that nobody asks for it any more

    def drop_calls(self) -> None:
        """Cancel the calls that are under way: their results are not wanted any more."""
        for call in self._calls:
            call.cancel()

    # -- boundaries --------------------------------------------------------------------------

    @property
    def asking(self) -> bool:
        """Whether the agent has asked for an event and there was none."""
        return self._waiter is not None and not self.busy

    def at_boundary(self) -> bool:
        """Say whether the agent is between two events."""
        return not self.busy or self._between or self._resume is not None

    def pause(self) -> None:
        """Begin no other event until :meth:`go_on`."""
        self._held = self._looking = True

    def go_on(self) -> None:
        """End the pause."""
        self._held, self._looking = False, self._times is not None
        if self._resume is not None:
            self._resume.set_result(None)
            self._resume = None

    def hold(self) -> None:
        """Keep the position at the event in hand until :meth:`release`."""
        run = self.context.run
        assert run is not None
        self._hold.setdefault(run.tp, run.offsets[self.context.index])

    def in_hand(self) -> dict[TP, tuple[int, int]]:
        """Return the first and last offset of the events that the agent has in hand, by input."""
        run, index = self.context.run, self.context.index
        if run is None or not run.offsets:
            return {}
        last = run.offsets[index]
        if self._whole:
            return {run.tp: (run.offsets[0], last)}
        held = {tp: (first, self._done.get(tp, first + 1) - 1) for tp, first in self._hold.items()}
        return {**held, run.tp: (self._hold.get(run.tp, last), last)}

    def alone(self) -> bool:
        """Say whether the event in hand must not share a chunk with the next one."""
        run = self.context.run
        assert run is not None
        first, last = self.singly.get(run.tp, (0, -1))
        return first <= run.offsets[self.context.index] <= last

    def release(self) -> None:
        """Let the position move on to what has been dealt with."""
        self._hold.clear()
        self.handed_over = False

    def tick_in(self, delay_ms: float) -> None:
        """Give the feed a tick in ``delay_ms``, or once it is quiet again after that."""
        self._tick = self.clock.call_later(delay_ms, self._ticked)

    def no_tick(self) -> None:
        """Forget the tick."""
        self._due = self.overdue = False
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _ticked(self) -> None:
        self._tick = None
        self.overdue = True
        if self._waiter is not None and not self._waiter.done():
            self.busy = True
            self._waiter.set_result(TICK)
            self._waiter = None
        else:
            self._due = True
