"""Timers of a table, and punctuators: functions that are called when it is time.

::

    @carts.timer
    async def remind(user: str, time: int) -> None:       # event time, ms
        await REMINDERS.send(key=user, value=Reminder(user, carts[user]))

    carts.at(event.timestamp + 30 * 60_000, event.user_id)    # in an agent

    @app.punctuate(stream_time=60)
    async def report(time: int) -> None:
        await REPORTS.send(key="all", value=Report(time, totals["all"]))

They are called by the task that has the table's partition, between two events, and what they change
and send is part of the same transactions (:mod:`engine.timekeeper`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from engine.table import Kind, Seconds, TableHandle
from engine.windowed import milliseconds
from tables.timers import TimerPartition, restored

if TYPE_CHECKING:
    from engine.table import Emit, Table
    from engine.topic import Topic
    from tables.store import Change, Store


class TableTimers(TableHandle):
    """The timers that agents set for the keys of a table, and the function that they call.

    Args:
        fun: takes a key and the timer's time (ms); may be a coroutine function.
    """

    kind: Kind = "timers"

    def __init__(self, table: Table[Any, Any], fun: Callable[..., Any]) -> None:
        super().__init__(f"{table.name}-timers", key_type=table.key_type)
        self.key = table.key
        self.fun = checked(fun, 2, f"the timer of table {table.name!r} takes a key and a time")

    def open(self, store: Store, emit: Emit | None) -> TimerPartition:
        """Return the timers of a task."""
        return TimerPartition(self.name, store)

    def restored(self, changes: list[Change]) -> dict[str, list[Change]]:
        """Return what a store must hold for these changelog records."""
        return restored(self.name, changes)

    def set(self, time_ms: int, key: Any) -> None:
        """See :meth:`engine.table.Table.at`."""
        self._here().set(time_ms, self.key.encode(key))

    def cancel(self, time_ms: int, key: Any) -> None:
        """See :meth:`engine.table.Table.cancel`."""
        self._here().cancel(time_ms, self.key.encode(key))


class Punctuator:
    """A function that each task calls again and again.

    Args:
        fun: takes the time (ms); may be a coroutine function.
        channel: a topic: the tasks that read it call it. None: those that have its tables.
        stream_time: so many seconds of event time apart.
        wall_clock: so many seconds apart.
        tables: tables it uses that its code does not name.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        *,
        channel: Topic | None = None,
        stream_time: Seconds | None = None,
        wall_clock: Seconds | None = None,
        tables: Sequence[TableHandle] = (),
    ) -> None:
        self.name = fun.__qualname__.rpartition(".")[2]
        self.fun = checked(fun, 1, f"punctuator {self.name} takes the time")
        if (stream_time is None) == (wall_clock is None):
            raise ConfigError(f"punctuator {self.name}: give stream_time= or wall_clock=, in s")
        self.by_wall_clock = wall_clock is not None
        self.every_ms = milliseconds(wall_clock or stream_time or 0)
        if self.every_ms <= 0:
            raise ConfigError(f"punctuator {self.name}: its interval must be more than 0 seconds")
        self.channel = channel
        self.tables = tuple(tables)


def checked(fun: Callable[..., Any], count: int, says: str) -> Callable[..., Any]:
    """Return a function that can be called with so many arguments.

    Raises:
        ConfigError: it cannot; the message is what it ``says``.
    """
    try:
        inspect.signature(fun).bind(*range(count))
    except TypeError as error:
        raise ConfigError(f"{says}: {fun.__qualname__}() does not ({error})") from None
    return fun
