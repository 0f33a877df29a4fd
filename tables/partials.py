"""The partial matches of one key, and what events and the passing of time make of them.

Runs are kept in the order in which Flink works on them (:mod:`tables.runs`), and that is the order
of what comes out. An event is asked about once for all the runs that are in one state, and runs
that it means nothing to are not looked at, so ten thousand of them cost nothing until their event
comes.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tables.runs import GAP, Before, Complete, Held, Link, Run, Runs, taken

if TYPE_CHECKING:
    from tables.nfa import Automaton, Move, State

NEVER = 1 << 62


class Skip(NamedTuple):
    """What a match does to the others: see :mod:`engine.pattern`.

    Attributes:
        to: partial and complete matches are dropped that began before this place in the match.
        step: the step that is meant by ``first`` and ``last``.
    """

    to: Literal["nothing", "next", "end", "first", "last"] = "nothing"
    step: str = ""


class Found(NamedTuple):
    """What comes out: a match, or a partial match whose time is over.

    Attributes:
        ts: when it became known (ms).
        events: the taken events, by step; a step that took none is not there.
        timeout: whether it is the latter.
    """

    ts: int
    events: dict[str, list[Held]]
    timeout: bool = False


class Partials(Runs):
    """One key's partial matches at work.

    Attributes:
        limit: so many partial matches at most; the oldest is dropped for a newer one.
        dropped: how many were.
        prompt: a run's own time (``window_ms`` of its state) is over without an event, too.
        armed: the earliest timer that is set for this key.
        counted: how many things it had when somebody last counted them.
    """

    __slots__ = ("_automaton", "_skip", "armed", "counted", "dropped", "limit", "prompt")

    def __init__(self, automaton: Automaton, skip: Skip, *, limit: int, prompt: bool) -> None:
        super().__init__(automaton.steps, [state.window_ms for state in automaton.states])
        self._automaton = automaton
        self._skip = skip
        self.limit = limit
        self.prompt = prompt
        self.dropped = 0
        self.armed = NEVER
        self.counted = 0

    def add(self, ts: int, value: Any) -> None:
        """Let an event wait for its time."""
        event = Held(self._number(), ts, value)
        self.things[event.id] = event
        heappush(self.waiting, (ts, event.id))

    # -- an event ----------------------------------------------------------------------------

    def advance(self, watermark: int) -> list[Found]:
        """Work on the events at or before ``watermark`` and let the time pass."""
        found: list[Found] = []
        waiting = self.waiting
        while waiting and waiting[0][0] <= watermark:
            ts = waiting[0][0]
            found += self.pass_time(ts)
            while waiting and waiting[0][0] == ts:
                event = self.things[heappop(waiting)[1]]
                assert type(event) is Held
                found += self._work_on(event)
        found += self.pass_time(watermark)
        return found

    def _work_on(self, event: Held) -> list[Found]:
        """Show an event to every partial match, and let it begin one."""
        answers: dict[int, bool] = {}
        touched = self._touched_by(event, answers)
        start = self._automaton.start
        begun = start.decide(self._ask(start, event, answers, None), start=True)
        complete: list[Complete] = []
        for run, moves in touched:
            self._move(run, moves, event, complete)
        if begun is not None:
            self._begin(begun, event, complete)
        event.waiting = False
        if event.links:
            self.touched.add(event.id)
        else:
            self._forget(event.id)
        found = self._emit(complete, event.ts) if complete or self.complete else []
        while self.runs + len(self.complete) > self.limit and self.first is not None:
            self._remove(self.first)
            self.dropped += 1
            found += self._emit([], event.ts)
        return found

    def _touched_by(
        self, event: Held, answers: dict[int, bool]
    ) -> list[tuple[Run, tuple[Move, ...]]]:
        """Return the runs to which the event means something, in their order."""
        touched: list[tuple[Run, tuple[Move, ...]]] = []
        for index, runs in self.by_state.items():
            if not runs:
                continue
            state = self._automaton.states[index]
            if state.iterative:
                for run in runs:
                    moves = state.decide(self._ask(state, event, answers, run.last), start=False)
                    if moves is not None:
                        touched.append((run, moves))
            else:
                moves = state.decide(self._ask(state, event, answers, None), start=False)
                if moves is None:
                    continue
                touched.extend((run, moves) for run in runs)
        if len(touched) > 1:
            touched.sort(key=_place_of_first)
        return touched

    def _ask(
        self, state: State, event: Held, answers: dict[int, bool], last: Link | None
    ) -> tuple[bool, ...]:
        """Put an event to the tests of a state; those that look at nothing else, only once."""
        outcome = []
        before: Before | None = None
        for number in state.tests:
            answer = answers.get(number)
            if answer is None:
                test = self._automaton.tests[number]
                if test.iterative:
                    if before is None:
                        before = Before(self._steps, last)
                    answer = bool(test.ask(event.value, before))
                else:
                    answer = answers[number] = bool(test.ask(event.value))
            outcome.append(answer)
        return tuple(outcome)

    def _move(
        self, run: Run, moves: tuple[Move, ...], event: Held, complete: list[Complete]
    ) -> None:
        """Replace a run by what becomes of it."""
        going_on = [move for move in moves if move.target is not None]
        places = iter(self._places(run, going_on) if going_on else ())
        at: Run | None = run
        link: Link | None = None
        for move in moves:
            if move.take is not None and (link is None or link.step != move.take):
                link = self._link(event, move.take, run.last)
            last = run.last if move.take is None else link
            assert last is not None
            if move.target is None:
                last.users += 1
                complete.append(Complete(run.start, last))
                continue
            previous_ts = run.previous_ts if move.take is None else event.ts
            new = Run(self._number(), move.target.index, last, run.start, previous_ts, next(places))
            self.things[new.id] = new
            self._insert(new, at)
            at = new
        self._remove(run)

    def _begin(self, moves: tuple[Move, ...], event: Held, complete: list[Complete]) -> None:
        """Begin partial matches with an event; one that needs no more is complete already."""
        start = (event.ts, event.id)
        link: Link | None = None
        for move in moves:
            assert move.take is not None
            if link is None or link.step != move.take:
                link = self._link(event, move.take, None)
            if move.target is None:
                link.users += 1
                complete.append(Complete(start, link))
                continue
            place = 0 if self.last is None else self.last.place + GAP
            new = Run(self._number(), move.target.index, link, start, event.ts, place)
            self.things[new.id] = new
            self._insert(new, self.last)

    # -- the passing of time -----------------------------------------------------------------

    def due(self) -> int:
        """Return when time alone, or an event that waits, changes something next (ms)."""
        due = self.waiting[0][0] if self.waiting else NEVER
        if self._automaton.within_ms and self.first is not None:
            due = min(due, self.first.start[0] + self._automaton.within_ms)
        if self._ends and self.prompt:
            due = min(due, self._ends[0][0])
        return due

    def pass_time(self, now: int) -> list[Found]:
        """Give up what ``now`` has overtaken; what only waited for its time is complete."""
        over: list[tuple[Run, int]] = []
        within = self._automaton.within_ms
        run = self.first if within else None
        while run is not None and now - run.start[0] >= within:
            over.append((run, run.start[0] + within))
            run = run.after
        if self._ends and self._ends[0][0] <= now:
            over = self._own_time_over(now, over)
        if not over:
            return []
        complete: list[Complete] = []
        timeouts: list[Found] = []
        for run, end in over:
            assert run.last is not None
            if self._automaton.states[run.state].pending:
                run.last.users += 1
                complete.append(Complete(run.start, run.last))
            else:
                timeouts.append(Found(end, taken(self._steps, run.last), timeout=True))
            self._remove(run)
        return [*self._emit(complete, now), *timeouts]

    def _own_time_over(self, now: int, over: list[tuple[Run, int]]) -> list[tuple[Run, int]]:
        """Add the runs for which the time since their last event is over, all in their order."""
        ends = dict(over)
        while self._ends and self._ends[0][0] <= now:
            end, number, run = heappop(self._ends)
            if self.things.get(number) is run:
                ends[run] = end
        return sorted(ends.items(), key=_place_of_first)

    # -- matches -----------------------------------------------------------------------------

    def _emit(self, complete: list[Complete], ts: int) -> list[Found]:
        """Return the matches that may come out now, and skip what each of them rules out.

        With a skip strategy a match waits while an older partial match is under way, since that one
        may become a match that rules it out.
        """
        found: list[Found] = []
        matches = self.complete
        waited = len(matches)
        matches.extend(complete)
        while matches:
            match = matches.peek()
            if (
                self._skip.to != "nothing"
                and self.first is not None
                and match.start > self.first.start
            ):
                break
            matches.poll()
            events = taken(self._steps, match.last)
            if self._skip.to != "nothing":
                self._rule_out(events)
            found.append(Found(ts, events))
            self._release(match.last)
        if complete or len(matches) != waited:
            self.complete_touched |= bool(waited or matches)
        return found

    def _rule_out(self, events: dict[str, list[Held]]) -> None:
        skip = self._skip
        if skip.to in {"next", "end"}:
            every = [(event.ts, event.id) for taken_ in events.values() for event in taken_]
            until, itself = (min(every), True) if skip.to == "next" else (max(every), True)
        else:
            those = events.get(skip.step)
            if not those:
                return
            event = those[0 if skip.to == "first" else -1]
            until, itself = (event.ts, event.id), False
        run = self.first
        while run is not None and (run.start < until or (itself and run.start == until)):
            after = run.after
            self._remove(run)
            run = after
        gone = self.complete.remove_if(
            lambda match: match.start < until or (itself and match.start == until)
        )
        for match in gone:
            self._release(match.last)


def _place_of_first(row: tuple[Run, Any]) -> int:
    return row[0].place
