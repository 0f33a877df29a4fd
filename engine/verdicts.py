"""Which event is to blame, and what becomes of it: after exceptions of agents and refused outputs.

An exception names its event, except where an agent had several in hand (``take``, ``batches``):
once their tries are used up they come again one by one, and the one that fails alone is the one.

A refused output names nothing: a commit holds the work of many events. So the task goes back to the
last commit and hands out half as many events before the next cut, and again half, until a cut with
one event in it is refused. That costs nothing while all is well, and finds the cause of a refused
changelog record as surely as that of a refused output.

What is found out is kept in memory: after a crash the event gets its tries anew, and ends the same.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from engine import position
from engine.errors import AgentFailed, RecordRefused
from engine.traces import withheld

if TYPE_CHECKING:
    from engine.cut import TaskCut
    from engine.edges import Position
    from engine.record import TP
    from engine.task import Task

log = logging.getLogger(__name__)

FAILURES_MAX = 10_000
SAME_RESULT_MAX = 3
"""So many events in a row to blame for one window's result: then it is the window, not they."""


class Poison(NamedTuple):
    """An event that an agent must not get again."""

    agent: str
    tp: TP
    offset: int


class Quota(NamedTuple):
    """How many events a task may work on between two cuts, until it has passed some offsets."""

    limit: int
    until: dict[TP, int]


class Ruling(NamedTuple):
    """What becomes of a task after a failure.

    Attributes:
        stop: what a person must do before it can go on; "": it goes on by itself.
        pause_ms: when.
        error: what happened, where that is known better now.
    """

    stop: str = ""
    pause_ms: float = 0.0
    error: Exception | None = None


class Verdicts:
    """What one worker has found out about events.

    Attributes:
        poison: events to keep from agents, with the errors that they end with.
        singly: between which offsets an agent gets its events one by one, by agent and input.
        quotas: by task id.
    """

    def __init__(self) -> None:
        self.poison: dict[Poison, AgentFailed] = {}
        self.singly: dict[tuple[str, TP], tuple[int, int]] = {}
        self.quotas: dict[str, Quota] = {}
        self._tries: dict[tuple[str, Poison | None], int] = {}
        self._results: dict[tuple[str, str, bytes | None], int] = {}

    def on_failure(self, task: Task) -> Ruling:
        """Judge an exception of an agent."""
        error, at = task.failure, task.failed_at
        assert isinstance(error, AgentFailed)
        policy = task.part.policy_of(error.agent)
        if len(self._tries) > FAILURES_MAX:  # of events that succeeded later
            self._tries.clear()
        counted = (f"{task.id} {error.agent}", at)
        tries = self._tries[counted] = self._tries.get(counted, 0) + 1
        what = type(error.cause).__name__
        if tries <= policy.retries:
            pause_ms = policy.pause_ms(tries)
            log.warning("%s (%s); try %d of %d follows in %g s", error, what, tries,
                        policy.retries, pause_ms / 1000)  # fmt: skip
            return Ruling(pause_ms=pause_ms)
        del self._tries[counted]
        if any(first != last for first, last in task.failed_with.values()):
            assert at is not None
            for tp, (first, last) in task.failed_with.items():
                self._part(at.agent, tp, first, last)
            log.warning("%s (%s) with several events in hand; they follow one by one", error, what)
            return Ruling()
        if at is None:
            return Ruling("It has no event in hand: mend the agent, then restart the worker")
        error.tries = tries
        return self._end(task, [at], error)

    def on_refusal(self, cut: TaskCut, error: RecordRefused) -> Ruling:
        """Judge an output that the broker does not take: narrow its cause down, or end it."""
        assert error.tp is not None
        task, topic = cut.task, error.tp.topic
        if task.part.is_dead_letters(topic):
            return Ruling(f"Let {topic} take larger records (max.message.bytes), then restart")
        quota = self.quotas.get(task.id)
        until = {tp: _reached(at) for tp, at in cut.positions.items()}
        if quota is None or quota.limit > 1:
            limit = max(1, (cut.handed if quota is None else min(quota.limit, cut.handed)) // 2)
            self.quotas[task.id] = Quota(limit, until)
            log.warning("%s; task %s looks for the event that made it, %d at a time", error,
                        task.id, limit)  # fmt: skip
            return Ruling()
        self.quotas[task.id] = Quota(1, until)
        makers = task.part.makers_of(topic, None if cut.last is None else cut.last[0].topic)
        if self._part_chunks(cut, [node.name for node in makers]):
            return Ruling()
        if cut.last is None or not makers:
            return Ruling(f"No event made it. Let {topic} take it, then restart the worker")
        if task.part.is_result(topic) and self._is_seen_again(task.id, topic, error.key):
            return Ruling(
                f"It is the result of a window, and {SAME_RESULT_MAX} events that would close it "
                f"are dead letters. Let {topic} take larger records (max.message.bytes), then "
                "restart the worker"
            )
        tp, offset = cut.last
        failed = AgentFailed(makers[0].agent.name, f"{tp}@{offset}", error)
        return self._end(task, [Poison(node.name, tp, offset) for node in makers], failed)

    def _part_chunks(self, cut: TaskCut, makers: list[str]) -> bool:
        """Let agents that hold several events get them one by one; say whether there are any."""
        found = False
        for tp, at in cut.positions.items():
            for name in makers:
                start, end = _position_of(name, cut.before.get(tp)), _position_of(name, at)
                several = start < end and (cut.last is None or (tp, start) < cut.last)
                if several and self.singly.get((name, tp), (0, -1))[1] < end - 1:
                    self._part(name, tp, start, end - 1)
                    found = True
        return found

    def _part(self, agent: str, tp: TP, first: int, last: int) -> None:
        """Let an agent get its events between two offsets one by one."""
        known = self.singly.get((agent, tp), (first, last))
        self.singly[agent, tp] = min(first, known[0]), max(last, known[1])

    def _is_seen_again(self, task: str, topic: str, key: bytes | None) -> bool:
        seen = self._results.get((task, topic, key), 0) + 1
        self._results = {(task, topic, key): seen}
        return seen > SAME_RESULT_MAX

    def _end(self, task: Task, events: list[Poison], error: AgentFailed) -> Ruling:
        """Do with an event what the agent's policy says comes after the last try."""
        outcome = task.part.policy_of(error.agent).outcome
        if outcome == "stop":
            return Ruling(
                f"on_error of agent {error.agent} says stop: mend the agent or the event, "
                "then restart the worker",
                error=error,
            )
        self.poison[events[0]] = error
        for other in events[1:]:  # one dead letter is enough
            silent = self.poison[other] = AgentFailed(error.agent, error.place, error.cause)
            silent.letter = False
        what = "goes to the dead letters" if outcome == "dead_letter" else "is skipped"
        trace = None if isinstance(error.cause, RecordRefused) else error.cause
        log.error(
            "%s; after %d tries the event %s", error, error.tries, what, exc_info=withheld(trace)
        )
        return Ruling()

    def passed(self, task: str, committed: dict[TP, Position]) -> None:
        """Forget what is behind committed positions."""
        if not (self.poison or self.singly or self.quotas):
            return
        positions = {tp: at.offset for tp, at in committed.items()}
        for poison in [p for p in self.poison if p.offset < positions.get(p.tp, 0)]:
            del self.poison[poison]
        for key in [k for k, at in self.singly.items() if at[1] < positions.get(k[1], 0)]:
            del self.singly[key]
        quota = self.quotas.get(task)
        if quota and all(at <= positions.get(tp, at) for tp, at in quota.until.items()):
            del self.quotas[task]


def _position_of(agent: str, at: Position | None) -> int:
    """Return how far an agent was at a commit."""
    return 0 if at is None else position.unpack(at).ahead.get(agent, at.offset)


def _reached(at: Position) -> int:
    """Return how far the agent was that was furthest."""
    return max([at.offset, *position.unpack(at).ahead.values()])
