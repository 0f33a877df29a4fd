"""From a pattern's steps to its states, as Flink CEP 2.3 builds them: the last step first.

Each step becomes one state, or a chain of them where it is counted, or a loop; an optional step, or
a loop, has a twin for the time after an event that was left out, so that there are never two ways
past the same event.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tables.nfa import ALWAYS, Automaton, Condition, Edge, State, Test, both, negated

Contiguity = Literal["next", "followed_by", "followed_by_any", "not_next", "not_followed_by"]
Inside = Literal["next", "followed_by", "followed_by_any"]


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
            state.add("ignore", state, negated(refused))
            return state
        if self.step.contiguity == "not_next":
            state = self._state("normal")
            stop = self._stop(self.at)
            state.add("ignore" if sink.kind == "final" else "proceed", sink, negated(refused))
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
        return both(negated(until), self.where[self.at]) if until else self.where[self.at]

    def _ignore(self, contiguity: Contiguity) -> Condition | None:
        """Return when an event may be left out; None: never."""
        if contiguity == "next":
            return None
        return negated(self.where[self.at]) if contiguity == "followed_by" else ALWAYS

    def _ignore_inside(self) -> Condition | None:
        ignore, until = self._ignore(self.step.inside), self.until[self.at]
        return both(negated(until), ignore) if until and ignore is not None else ignore

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
                state.add("proceed", past, negated(until))
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
            loop.add("proceed", sink, negated(until) if until else ALWAYS)
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
            edge._replace(condition=both(edge.condition, negated(take))) for edge in sink.edges
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
