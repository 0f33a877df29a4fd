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


class Test(NamedTuple):
    """A question about an event. ``iterative``: it sees what was matched before as well."""

    ask: Callable[..., Any]
    iterative: bool


# -- conditions ------------------------------------------------------------------------------------

Condition = tuple[Any, ...]
"""("test", number), ("not", c), ("and", a, b), or () for one that always holds."""

ALWAYS: Condition = ()


def negated(condition: Condition) -> Condition:
    """Return the opposite."""
    return ("not", condition)


def both(one: Condition, other: Condition) -> Condition:
    """Return a condition that holds if both do."""
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


class Sieve:
    """Tells the events apart that can mean nothing to any partial match, now or later.

    They need not wait for their time: most events of most patterns. Only for patterns whose tests
    look at nothing but the event, and where time does nothing by itself that could be told by the
    events that it passes: matches that wait for their time, or for older partial matches, have the
    time of the event that let them out.
    """

    __slots__ = ("_automaton", "_known", "usable")

    def __init__(self, automaton: Automaton, *, skips: bool) -> None:
        states = automaton.states
        self._automaton = automaton
        self._known: dict[tuple[bool, ...], bool] = {}
        self.usable = not (
            skips
            or automaton.neighbours
            or any(state.pending or state.iterative for state in states)
        )

    def holds_back(self, event: Any) -> bool:
        """Say whether the event means nothing."""
        outcome = tuple([bool(test.ask(event)) for test in self._automaton.tests])
        known = self._known.get(outcome)
        if known is None:
            known = self._known[outcome] = self._means_nothing(outcome)
        return known

    def _means_nothing(self, outcome: tuple[bool, ...]) -> bool:
        start = self._automaton.start
        return all(
            state.decide(tuple(outcome[test] for test in state.tests), start=state is start) is None
            for state in self._automaton.states
            if state.kind == "normal"
        )
