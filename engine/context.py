"""Where a line of agent code is: which task it runs for, and which event it has in hand.

One :class:`Context` lives as long as an agent's coroutine does and is found through a context
variable, so two tasks of one worker can be in the middle of their events at the same time.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from engine.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.outbox import Outbox
    from engine.record import Headers, Run
    from engine.topic import Topic


class Context:
    """An agent's place: its task's tables and outbox, its current run, and the index in it.

    ``world`` are the worker's global tables.
    """

    __slots__ = ("agent", "index", "outbox", "run", "tables", "task", "world")

    def __init__(
        self,
        agent: str,
        task: str,
        tables: dict[str, Any],
        outbox: Outbox,
        world: Mapping[str, Any],
    ) -> None:
        self.agent = agent
        self.task = task
        self.tables = tables
        self.outbox = outbox
        self.world = world
        self.run: Run | None = None
        self.index = 0

    def table(self, name: str) -> Any:
        """Return this task's partition of a table.

        Raises:
            ContextError: the topology does not know that this agent uses it.
        """
        try:
            return self.tables[name]
        except KeyError:
            raise ContextError(
                f"agent {self.agent} uses table {name!r}, which its task {self.task} does not "
                f"hold: declare it with @app.agent(..., tables=[{name.replace('-', '_')}])"
            ) from None

    def time_ms(self) -> int:
        """Return the event time of the event in hand."""
        if self.run is None:
            raise ContextError(f"agent {self.agent} has no event in hand: no time to go by")
        return self.run.times[self.index]

    def source_key(self) -> bytes | None:
        """Return the raw key of the event in hand."""
        return None if self.run is None else self.run.keys[self.index]

    def place(self) -> str:
        """Return where the event in hand came from, for messages."""
        if self.run is None:
            return "no event"
        return f"{self.run.tp}@{self.run.offsets[self.index]}"

    def emit(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        timestamp: int | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        """Put a record into the task's outbox: it goes out with the commit of the event in hand."""
        self.outbox.lane(topic.name).put(
            key,
            value,
            self.time_ms() if timestamp is None else timestamp,
            headers,
            source_key=self.source_key(),
            partition=partition,
        )


current: ContextVar[Context | None] = ContextVar("headrace_context", default=None)


def current_task_context() -> Context | None:
    """Return the context of the agent that runs, or None outside of agents."""
    return current.get()


def event_time_ms() -> int:
    """Return the event time (ms) of the event in hand."""
    context = current.get()
    return (context_for("the event time") if context is None else context).time_ms()


def context_for(what: str) -> Context:
    """Return the running agent's context.

    Raises:
        ContextError: there is none; the message names ``what`` needed it.
    """
    context = current.get()
    if context is None:
        raise ContextError(f"{what} can only be used inside an agent, where there is a task")
    return context
