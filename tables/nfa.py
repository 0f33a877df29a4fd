"""A pattern as an automaton: its states, and what an event does to a partial match in one of them.

As in Flink CEP 2.3, states have edges of three kinds: *take* the event and go on, *ignore* it and
stay (or go to a twin that has no way past its step), *proceed* to another state without using the
event up. Every edge has a condition. What follows from an event depends on nothing but the state
and the truth of the steps' tests, so it is worked out once per state and outcome, and looked up
from then on (:meth:`State.decide`).

Times in ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

Contiguity = Literal["next", "followed_by", "followed_by_any", "not_next", "not_followed_by"]
Inside = Literal["next", "followed_by", "followed_by_any"]


class Test(NamedTuple):
    """A question about an event. ``iterative``: it sees what was matched before as well."""

    ask: Callable[..., Any]
    iterative: bool


class Step(msgspec.Struct, frozen=True):
    """One step of a pattern.

    Attributes:
        where: what its events must meet; None: any event will do.
        least, most: how many events it takes; ``most`` None: without end.
        quantified: whether that was said (``times`` and its kin); one is the default.
        inside: how its own events follow each other.
        until: an event that meets it ends the loop.
        within_ms: from the first event of the match to the last, without it.
        neighbours_ms: from the event before to the one that this step waits for, without it.
    """

    name: str
    contiguity: Contiguity = "next"
    where: Test | None = None
    least: int = 1
    most: int | None = 1
    quantified: bool = False
    optional: bool = False
    greedy: bool = False
    inside: Inside = "followed_by"
    until: Test | None = None
    within_ms: int | None = None
    neighbours_ms: int | None = None


# -- conditions ------------------------------------------------------------------------------------

Condition = tuple[Any, ...]
"""("test", number), ("not", c), ("and", a, b), or () for one that always holds."""

ALWAYS: Condition = ()


def _not(condition: Condition) -> Condition:
    return ("not", condition)


def _and(one: Condition, other: Condition) -> Condition:
    return ("and", one, other) if one and other else one or other


def _holds(condition: Condition, truth: dict[int, bool]) -> bool:
    if not condition:
        return True
    match condition[0]:
        case "test":
            return truth[condition[1]]
        case "not":
            return not _holds(condition[1], truth)
        case _:
            return _holds(condition[1], truth) and _holds(condition[2], truth)


def _tests_of(condition: Condition) -> set[int]:
    if not condition:
        return set()
    if condition[0] == "test":
        return {condition[1]}
    return set().union(*map(_tests_of, condition[1:]))


# -- states ----------------------------------------------------------------------------------------


class Move(NamedTuple):
    """One thing that becomes of a partial match.

    Attributes:
        take: the step that the event is taken for; None: the event is left out.
        target: the state it is in from then on; None: it is complete.
    """

    take: int | None
    target: State | None


class Edge(NamedTuple):
    """A way out of a state. ``source``: the state whose step a taken event belongs to."""

    action: Literal["take", "ignore", "proceed"]
    source: State
    target: State
    condition: Condition


_UNKNOWN: Any = object()


class State:
    """One state. Compared by identity.

    Attributes:
        step: the number of the step that it belongs to.
        window_ms: the time since the event before after which it is given up; 0: none.
        pending: it is complete once its time is over (``not_followed_by`` at the end).
        tests: the tests that an event must be put to in this state.
    """

    __slots__ = (
        "_known", "edges", "index", "iterative", "kind", "name", "pending", "step", "tests",
        "window_ms",
    )  # fmt: skip

    def __init__(self, index: int, name: str, step: int, kind: str, window_ms: int) -> None:
        self.index = index
        self.name = name
        self.step = step
        self.kind = kind
        self.window_ms = window_ms
        self.pending = kind == "pending"
        self.edges: list[Edge] = []
        self.tests: tuple[int, ...] = ()
        self.iterative = False
        self._known: dict[Any, tuple[Move, ...] | None] = {}

    def __repr__(self) -> str:
        return f"<State {self.name} {self.kind}>"

    def add(
        self,
        action: Literal["take", "ignore", "proceed"],
        target: State,
        condition: Condition = ALWAYS,
    ) -> None:
        """Add a way out."""
        self.edges.append(Edge(action, self, target, condition))

    def decide(self, outcome: tuple[bool, ...], *, start: bool) -> tuple[Move, ...] | None:
        """Return what becomes of a partial match here; None: nothing, it stays as it is.

        Args:
            outcome: the answers to :attr:`tests`.
            start: a match begins here (the state stays, whatever comes of it).
        """
        known: tuple[Move, ...] | None = self._known.get(outcome, _UNKNOWN)
        if known is _UNKNOWN:
            truth = dict(zip(self.tests, outcome, strict=True))
            known = self._known[outcome] = self._moves(truth, start=start)
        return known

    def _moves(self, truth: dict[int, bool], *, start: bool) -> tuple[Move, ...] | None:
        moves: list[Move] = []
        stopped = False
        for edge in self._open_edges(truth):
            if edge.action == "ignore":
                if start:
                    continue
                stopped |= edge.target.kind == "stop"
                moves.append(Move(None, _unless_final(edge.target)))
                continue
            stopped |= edge.target.kind == "stop"
            moves.append(Move(edge.source.step, _unless_final(edge.target)))
            if edge.target.kind != "final" and edge.target.leads_to_end(truth):
                moves.append(Move(edge.source.step, None))
        if stopped:  # what is complete stands, all else ends here
            moves = [move for move in moves if move.target is None]
        elif moves == [Move(None, self)] or (start and not moves):
            return None
        return tuple(moves)

    def _open_edges(self, truth: dict[int, bool]) -> list[Edge]:
        """Return the take and ignore edges that can be gone, those behind proceed edges too."""
        edges: list[Edge] = []
        stack = [self]
        while stack:
            for edge in stack.pop().edges:
                if _holds(edge.condition, truth):
                    if edge.action == "proceed":
                        stack.append(edge.target)
                    else:
                        edges.append(edge)
        return edges

    def leads_to_end(self, truth: dict[int, bool]) -> bool:
        """Say whether nothing more is needed from here."""
        return any(
            edge.action == "proceed"
            and _holds(edge.condition, truth)
            and (edge.target.kind == "final" or edge.target.leads_to_end(truth))
            for edge in self.edges
        )

    def asks(self) -> set[int]:
        """Return every test on which :meth:`decide` may depend."""
        found: set[int] = set()
        for edge in self.edges:
            found |= _tests_of(edge.condition)
            if edge.action == "proceed":
                found |= edge.target.asks()
            elif edge.target is not self:
                found |= edge.target.asks_to_end()
            else:
                found |= self.asks_to_end()
        return found

    def asks_to_end(self) -> set[int]:
        """Return every test on which :meth:`leads_to_end` may depend."""
        found: set[int] = set()
        for edge in self.edges:
            if edge.action == "proceed":
                found |= _tests_of(edge.condition) | edge.target.asks_to_end()
        return found


def _unless_final(state: State) -> State | None:
    return None if state.kind == "final" else state


class Automaton(NamedTuple):
    """A compiled pattern.

    Attributes:
        steps: the names of the steps, by number.
        tests: what events are asked, by number.
        within_ms: the time of a whole match, without its end; 0: as long as it takes.
        neighbours: whether any state has a time of its own.
    """

    steps: tuple[str, ...]
    tests: tuple[Test, ...]
    states: tuple[State, ...]
    start: State
    within_ms: int
    neighbours: bool


# -- from steps to states --------------------------------------------------------------------------


def compile_steps(steps: tuple[Step, ...]) -> Automaton:
    """Return the automaton of a pattern, built from its last step to its first."""
    return _Compiler(steps).automaton()


class _Compiler:
    """Where the construction stands: ``at`` is the number of the step that is being built."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps
        self.at = len(steps) - 1
        self.tests: list[Test] = []
        self.where: list[Condition] = []
        self.until: list[Condition] = []
        for step in steps:
            self.where.append(self._test(step.where))
            self.until.append(self._test(step.until))
        self.states: list[State] = []
        self.names: set[str] = set()
        self.stops: dict[int, State] = {}
        self.without_greed: dict[State, State] = {}

    def automaton(self) -> Automaton:
        sink = self._state("final", within=False, name="$end")
        while self.at > 0:
            sink = self._before(sink)
            self.at -= 1
        start = self._step(sink)
        for state in self.states:
            state.tests = tuple(sorted(state.asks()))
            state.iterative = any(self.tests[test].iterative for test in state.tests)
        windows = [step.within_ms for step in self.steps if step.within_ms is not None]
        return Automaton(
            tuple(step.name for step in self.steps),
            tuple(self.tests),
            tuple(self.states),
            start,
            min(windows, default=0),
            any(state.window_ms for state in self.states),
        )

    def _test(self, test: Test | None) -> Condition:
        if test is None:
            return ALWAYS
        self.tests.append(test)
        return ("test", len(self.tests) - 1)

    @property
    def step(self) -> Step:
        return self.steps[self.at]

    def _state(self, kind: str, *, within: bool = True, name: str | None = None) -> State:
        """Make a state of the step at hand.

        Args:
            within: the step's limit between neighbours holds in it. As in Flink, it does not in
                the twins that wait behind an event that was left out, nor in a counted step.
        """
        step = self.step
        name = step.name if name is None else name
        window = step.neighbours_ms if within and not step.quantified else None
        unique, count = name, 0
        while unique in self.names:
            unique, count = f"{name}:{count}", count + 1
        self.names.add(unique)
        state = State(len(self.states), unique, self.at, kind, window or 0)
        self.states.append(state)
        return state

    def _before(self, sink: State) -> State:
        """Return the state that leads to ``sink`` through the step at hand."""
        refused = self.where[self.at]
        if self.step.contiguity == "not_followed_by":
            if sink.kind != "final":
                return sink  # its condition goes to the states around it
            state = self._state("pending")
            state.add("proceed", self._stop(self.at), refused)
            state.add("ignore", state, _not(refused))
            return state
        if self.step.contiguity == "not_next":
            state = self._state("normal")
            stop = self._stop(self.at)
            state.add("ignore" if sink.kind == "final" else "proceed", sink, _not(refused))
            state.add("proceed", stop, refused)
            return state
        return self._step(sink)

    def _step(self, sink: State) -> State:
        step = self.step
        if step.most is None:
            loop = self._loop(self._without_nots(sink))
            first = self._counted(loop, sink, step.least, step.least)
        elif step.quantified:
            first = self._counted(sink, sink, step.least, step.most)
        else:
            first = self._single(
                sink, sink, self._take(), self._ignore(step.contiguity), optional=step.optional
            )
        self._add_stops(first)
        return first

    # -- conditions of the step at hand ------------------------------------------------------

    def _take(self) -> Condition:
        until = self.until[self.at]
        return _and(_not(until), self.where[self.at]) if until else self.where[self.at]

    def _ignore(self, contiguity: Contiguity) -> Condition | None:
        """Return when an event may be left out; None: never."""
        if contiguity == "next":
            return None
        return _not(self.where[self.at]) if contiguity == "followed_by" else ALWAYS

    def _ignore_inside(self) -> Condition | None:
        ignore, until = self._ignore(self.step.inside), self.until[self.at]
        return _and(_not(until), ignore) if until and ignore is not None else ignore

    # -- building blocks ---------------------------------------------------------------------

    def _single(
        self,
        sink: State,
        past: State | None,
        take: Condition,
        ignore: Condition | None,
        *,
        optional: bool,
    ) -> State:
        """Return a state that takes one event. ``past``: where it goes on to without one."""
        state = self._state("normal")
        target = self._without_nots(sink)
        state.add("take", target, take)
        until = self.until[self.at]
        if optional:
            assert past is not None
            if self.step.greedy and until:
                state.add("proceed", self.without_greed.get(past, past), until)
                state.add("proceed", past, _not(until))
            else:
                state.add("proceed", past)
        if ignore is not None:
            waiting = state
            if optional:  # behind an event that was left out there is no second way past it
                waiting = self._state("normal", within=False)
                waiting.add("take", target, take)
                waiting.add("ignore", waiting, ignore)
                self._add_stops(waiting)
            state.add("ignore", waiting, ignore)
        return state

    def _counted(self, sink: State, past: State, least: int, most: int) -> State:
        """Return a chain of states that takes from ``least`` to ``most`` events."""
        take, inside = self._take(), self._ignore_inside()
        if self.step.greedy and least != most:
            self._prefer(take, sink)
        last = sink
        for _ in range(least, most):
            last = self._single(last, past, take, inside, optional=True)
            self._stop_inside(last)
        for _ in range(least - 1):
            last = self._single(last, None, take, inside, optional=False)
            self._stop_inside(last)
        outside = self._ignore(self.step.contiguity)
        return self._single(last, past, take, outside, optional=self.step.optional)

    def _loop(self, sink: State) -> State:
        """Return a state that takes events again and again, and is past its step at any time."""
        take, ignore, until = self._take(), self._ignore_inside(), self.until[self.at]
        loop = self._state("normal")
        if self.step.greedy:
            if until:
                plain = self.without_greed[sink] = self._copy(sink)
                loop.add("proceed", plain, until)
            loop.add("proceed", sink, _not(until) if until else ALWAYS)
            self._prefer(self.where[self.at], sink)
        else:
            loop.add("proceed", sink)
        loop.add("take", loop, take)
        self._stop_inside(loop)
        if ignore is not None:
            waiting = self._state("normal", within=False)
            waiting.add("take", loop, take)
            waiting.add("ignore", waiting, ignore)
            loop.add("ignore", waiting, ignore)
            self._stop_inside(waiting)
        return loop

    def _prefer(self, take: Condition, sink: State) -> None:
        """Let ``sink`` have no event that the greedy step at hand would take."""
        sink.edges = [
            edge._replace(condition=_and(edge.condition, _not(take))) for edge in sink.edges
        ]

    def _copy(self, state: State) -> State:
        twin = self._state(state.kind, within=False, name=state.name.partition(":")[0])
        twin.step = state.step
        for edge in state.edges:
            twin.add(edge.action, twin if edge.target is state else edge.target, edge.condition)
        return twin

    # -- not_followed_by between two steps ---------------------------------------------------

    def _stop(self, at: int) -> State:
        if at not in self.stops:
            self.stops[at] = self._state("stop", within=False, name=self.steps[at].name)
            self.stops[at].add("take", self.stops[at], self.where[at])
        return self.stops[at]

    def _nots(self) -> list[int]:
        """Return the not_followed_by steps right before the one at hand, optional ones between."""
        found = []
        at = self.at - 1
        while at >= 0 and (
            self.steps[at].optional or self.steps[at].contiguity == "not_followed_by"
        ):
            if self.steps[at].contiguity == "not_followed_by":
                found.append(at)
            at -= 1
        return found

    def _add_stops(self, state: State) -> None:
        for at in self._nots():
            state.add("proceed", self._stop(at), self.where[at])

    def _stop_inside(self, state: State) -> None:
        """A loop that is followed by a not_followed_by can be stopped at any time."""
        after = self.at + 1
        if after < len(self.steps) and self.steps[after].contiguity == "not_followed_by":
            state.add("proceed", self._stop(after), self.where[after])

    def _without_nots(self, sink: State) -> State:
        """Return what an optional step that did take its event leads to.

        The not_followed_by before it has had its say then: after ``a, not c, b?, d``, a ``c`` that
        comes behind a ``b`` stops nothing.
        """
        nots = self._nots()
        if not nots or not self.step.optional:
            return sink
        twin = self._state(sink.kind, within=False, name=sink.name)
        twin.step = sink.step
        for edge in sink.edges:
            if edge.action != "proceed":
                target = twin if edge.target is edge.source else edge.target
            elif edge.target.kind != "stop":
                target = self._without_nots(edge.target)
            elif any(edge.target.name == self.steps[at].name for at in nots):
                continue
            else:
                target = edge.target
            twin.edges.append(Edge(edge.action, twin, target, edge.condition))
        return twin
