"""What is kept of one key for a pattern: events that wait, partial matches, and what they share.

An event that was taken is kept once, however many partial matches have it: each of these is a run
that points to its last *link*, and a link points to its event and to the link before, so runs that
have forked share what they have in common. What nothing points to any more is gone at once.

Runs are a list in the order in which they began, and those that forked lie side by side.
"""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from tables.java_queue import Queue

if TYPE_CHECKING:
    from tables.nfa import Move

GAP = 1 << 20
"""Between the places of two runs, so that there is room for forks."""


class Held:
    """An event that is kept: it waits for its time, or some link points to it."""

    __slots__ = ("id", "links", "raw", "ts", "value", "waiting")

    def __init__(self, id_: int, ts: int, value: Any, *, waiting: bool = True) -> None:
        self.id = id_
        self.ts = ts
        self.value = value
        self.raw: bytes | None = None  # its bytes, once they were needed
        self.waiting = waiting
        self.links = 0


class Link:
    """One event of a partial match: the step it was taken for, and the link before."""

    __slots__ = ("before", "event", "id", "step", "users")

    def __init__(self, id_: int, event: Held, step: int, before: Link | None) -> None:
        self.id = id_
        self.event = event
        self.step = step
        self.before = before
        self.users = 0  # runs, complete matches and links


class Run:
    """A partial match: the state it is in, its last link, when it began and when it last took."""

    __slots__ = (
        "after", "before", "id", "last", "place", "previous_ts", "start", "state",
    )  # fmt: skip

    def __init__(
        self,
        id_: int,
        state: int,
        last: Link | None,
        start: tuple[int, int],
        previous_ts: int,
        place: int,
    ) -> None:
        self.id = id_
        self.state = state
        self.last = last
        self.start = start  # ts and id of its first event
        self.previous_ts = previous_ts
        self.place = place
        self.before: Run | None = None
        self.after: Run | None = None


class Complete(NamedTuple):
    """A match, which may have to wait for older partial matches before it may come out."""

    start: tuple[int, int]
    last: Link


class Before:
    """What a partial match has so far, for conditions that ask: ``before["login"]`` is a list."""

    __slots__ = ("_events", "_last", "_steps")

    def __init__(self, steps: tuple[str, ...], last: Link | None) -> None:
        self._steps = steps
        self._last = last
        self._events: dict[str, list[Held]] | None = None

    def __getitem__(self, step: str) -> list[Any]:
        if step not in self._steps:
            raise KeyError(f"the pattern has no step {step!r}: it has {', '.join(self._steps)}")
        if self._events is None:
            self._events = taken(self._steps, self._last)
        return [event.value for event in self._events.get(step, ())]


def taken(steps: tuple[str, ...], last: Link | None) -> dict[str, list[Held]]:
    """Return the events of a match by step, in the order in which they were taken."""
    chain: list[Link] = []
    while last is not None:
        chain.append(last)
        last = last.before
    events: dict[str, list[Held]] = {}
    for link in reversed(chain):
        events.setdefault(steps[link.step], []).append(link.event)
    return events


class Runs:
    """One key's waiting events, runs, and complete matches that wait.

    Attributes:
        things: everything that is kept, by its number; numbers only go up.
        touched: the numbers of what has changed since somebody last emptied the set.
        pages: the store's entries that hold some of it, by number.
        waiting: a heap of the time and the number of each event that waits.
        by_state: the runs in each state.
        complete: matches that may not come out yet.
    """

    __slots__ = (
        "_ends", "_next", "_steps", "_windows", "by_state", "complete", "complete_touched",
        "first", "last", "pages", "runs", "things", "touched", "waiting",
    )  # fmt: skip

    def __init__(self, steps: tuple[str, ...], windows: list[int]) -> None:
        self._steps = steps
        self._windows = windows  # the time that a run may spend in a state, by state (ms)
        self._next = 1
        self._ends: list[tuple[int, int, Run]] = []  # a heap: when that time is over, lazily
        self.things: dict[int, Held | Link | Run] = {}
        self.touched: set[int] = set()
        self.pages: set[int] = set()
        self.waiting: list[tuple[int, int]] = []
        self.by_state: dict[int, dict[Run, None]] = {}
        self.first: Run | None = None
        self.last: Run | None = None
        self.runs = 0
        self.complete: Queue = Queue()
        self.complete_touched = False

    # -- keeping things ----------------------------------------------------------------------

    def _number(self) -> int:
        number = self._next
        self._next = number + 1
        self.touched.add(number)
        return number

    def _link(self, event: Held, step: int, before: Link | None) -> Link:
        link = Link(self._number(), event, step, before)
        self.things[link.id] = link
        event.links += 1
        if before is not None:
            before.users += 1
        return link

    def _release(self, link: Link | None) -> None:
        """One user less: forget the links, and the events, that nobody uses any more."""
        while link is not None:
            link.users -= 1
            if link.users:
                return
            self._forget(link.id)
            link.event.links -= 1
            if not link.event.links and not link.event.waiting:
                self._forget(link.event.id)
            link = link.before

    def _forget(self, number: int) -> None:
        del self.things[number]
        self.touched.add(number)

    def put(self, things: list[Held | Link | Run], complete: list[Complete]) -> None:
        """Take in what was stored before (all of it at once)."""
        for thing in things:
            self.things[thing.id] = thing
            self._next = max(self._next, thing.id + 1)
            if type(thing) is Link:
                thing.event.links += 1
                if thing.before is not None:
                    thing.before.users += 1
            elif type(thing) is Held and thing.waiting:
                heappush(self.waiting, (thing.ts, thing.id))
        runs = [thing for thing in things if type(thing) is Run]
        for run in sorted(runs, key=_place):
            self._insert(run, self.last)
        for match in complete:
            match.last.users += 1
        self.complete = Queue(complete)

    def under_way(self) -> list[tuple[int, dict[str, list[Any]]]]:
        """Return start (ms) and events by step of every partial match, in their order."""
        rows = []
        run = self.first
        while run is not None:
            events = taken(self._steps, run.last)
            values = {step: [event.value for event in those] for step, those in events.items()}
            rows.append((run.start[0], values))
            run = run.after
        return rows

    # -- the list of runs --------------------------------------------------------------------

    def _insert(self, run: Run, before: Run | None) -> None:
        """Put a run behind ``before`` (None: to the front)."""
        after = self.first if before is None else before.after
        run.before, run.after = before, after
        if before is None:
            self.first = run
        else:
            before.after = run
        if after is None:
            self.last = run
        else:
            after.before = run
        self.runs += 1
        if run.last is not None:
            run.last.users += 1
        self.by_state.setdefault(run.state, {})[run] = None
        window = self._windows[run.state]
        if window:
            heappush(self._ends, (run.previous_ts + window, run.id, run))

    def _remove(self, run: Run) -> None:
        before, after = run.before, run.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        self.runs -= 1
        del self.by_state[run.state][run]
        self._forget(run.id)
        self._release(run.last)

    def _places(self, run: Run, moves: list[Move]) -> list[int]:
        """Return places for what becomes of a run, between it and its neighbour.

        One that will fork again (it stays in its state) gets the end with more room.
        """
        count = len(moves)
        if run.after is None:
            return [run.place + i * GAP for i in range(count)]
        if run.after.place - run.place < count:
            self._spread()
        if moves[-1].target is not None and moves[-1].target.index == run.state:
            return [run.place + i for i in range(count)]
        return [run.place, *range(run.after.place - count + 1, run.after.place)]

    def _spread(self) -> None:
        """Make room everywhere."""
        place = 0
        run = self.first
        while run is not None:
            run.place = place
            self.touched.add(run.id)
            place += GAP
            run = run.after


def _place(run: Run) -> int:
    return run.place
