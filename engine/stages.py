"""Where a worker's processor time goes, stage by stage of a record's path.

One stage has the thread at a time; whoever begins something switches to its own and back, some ten
times a round of thousands of records, so the stages add up to all that the thread has used. What
belongs to none (what comes in by the sockets, aiokafka, the event loop itself) is ``loop``. A
coroutine that waits in between is charged step by step (:func:`charged`).
"""

from __future__ import annotations

import time
import types
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    T = TypeVar("T")

Stage = Literal[
    "loop",  # sockets, aiokafka, asyncio, hand-over, and what is said nowhere else
    "poll",  # record batches to columns
    "decode",  # and check
    "agent",  # with the tables that it reads and changes
    "cut",  # table entries and positions, encoded
    "encode",  # records to record batches
    "produce",  # their requests
    "commit",  # the transaction's other requests, and what is around them
    "store",  # one WriteBatch a task
]

_NS = 1_000_000_000


class Stages:
    """What one thread has spent where, in ns of processor time."""

    __slots__ = ("_at", "_since", "spent")

    def __init__(self) -> None:
        self.spent: dict[Stage, int] = {}
        self._at: Stage = "loop"
        self._since = 0

    def begin(self) -> None:
        """Begin to count, now and on this thread."""
        self.spent.clear()
        self._at, self._since = "loop", time.thread_time_ns()

    def switch(self, stage: Stage) -> Stage:
        """Charge what was used since the last switch to the stage that had it; return that one."""
        now, before = time.thread_time_ns(), self._at
        self.spent[before] = self.spent.get(before, 0) + now - self._since
        self._at, self._since = stage, now
        return before

    def seconds(self) -> dict[Stage, float]:
        """Return the seconds by stage since :meth:`begin`; threads of RocksDB are not in them."""
        self.switch(self._at)
        return {stage: spent / _NS for stage, spent in self.spent.items()}


stages = Stages()
"""This process's: there is one loop."""


async def charged(stage: Stage, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine, each step of which is charged to a stage.

    Args:
        begin: makes the coroutine. It may never be called: a task can be cancelled before it runs.
    """
    return await _step_by_step(stage, begin())


@types.coroutine
def _step_by_step(stage: Stage, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Drive a coroutine by hand; a task takes no generator since Python 3.12, but awaits one."""
    value: Any = None
    error: BaseException | None = None
    while True:
        before = stages.switch(stage)
        try:
            waits_for = work.send(value) if error is None else work.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            stages.switch(before)
        try:
            value, error = (yield waits_for), None
        except BaseException as thrown:  # noqa: BLE001  a cancellation, above all
            error = thrown
