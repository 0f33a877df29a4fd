"""Named places where a worker can be made to end at once, as ``kill -9`` would end it.

``HEADRACE_CRASH_AT=end-sent`` ends a worker the first time it gets there, ``end-sent:3`` the third
time. It writes one line to stderr and has exit status 137. Random kills hit such places by luck;
``headrace torture --crash-points`` and tests/faults hit each of them.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from engine.cut import TaskCut

T = TypeVar("T")

EXIT_CODE = 137
"""What a shell says of a process that SIGKILL has ended."""
LEAVE_S = 0.002
"""A request is handed to the kernel within so long, on a connection that is open."""

POINTS = {
    "before-init": "before InitProducerId, at the start and after a failed commit",
    "after-init": "after it: what the predecessor left open is decided, nothing is read yet",
    "restore": "in a restore, after a chunk is in the store",
    "promote": "a standby is about to become a task",
    "dead-letter": "a commit that carries dead letters is cut, nothing is sent",
    "window-close": "a commit that carries the results of windows is cut, nothing is sent",
    "before-send": "before the transaction's first request",
    "after-add-offsets": "after AddPartitionsToTxn and AddOffsetsToTxn",
    "produce-sent": "records are on the wire, no answer was looked at",
    "after-gather": "every record is acknowledged",
    "after-offsets": "after TxnOffsetCommit, before EndTxn",
    "end-sent": "EndTxn is on the wire, unanswered",
    "committed": "Kafka has the commit, no store has",
    "between-writes": "one task's store has the commit, the next one's has not",
    "revoke": "in a rebalance, before its commit",
    "shutdown": "after the last commit, before the group is left",
}
"""Every place, in the order of a worker's life."""


class _Armed:
    """The place to end at, and how often it is passed before."""

    def __init__(self, where: str) -> None:
        self.name, _, nth = where.partition(":")
        if self.name not in POINTS or not (nth or "1").isdigit() or nth == "0":
            raise ConfigError(
                f"HEADRACE_CRASH_AT={where}: write NAME or NAME:NTH; names are {', '.join(POINTS)}"
            )
        self.left = int(nth or "1")

    def is_at(self, name: str) -> bool:
        if name == self.name:
            self.left -= 1
        return name == self.name and self.left == 0


_armed: _Armed | None = None


def arm(where: str) -> None:
    """Arm a place; nothing is armed by an empty text.

    Raises:
        ConfigError: there is no such place.
    """
    global _armed  # noqa: PLW0603
    _armed = _Armed(where) if where else None


def reach(name: str) -> None:
    """Say that a worker is at a place: it goes no further if that is armed."""
    if _armed is not None and _armed.is_at(name):
        _end(name)


async def sent(name: str, asking: Awaitable[T]) -> T:
    """Await an answer; where ``name`` is armed, end when the request is on its way instead."""
    if _armed is None or not _armed.is_at(name):
        return await asking
    asyncio.ensure_future(asking)  # noqa: RUF006, TID251  (there is no later)
    await asyncio.sleep(LEAVE_S)
    _end(name)
    raise AssertionError("unreachable")


def reach_with(cuts: list[TaskCut]) -> None:
    """Say what a commit carries: ``dead-letter`` and ``window-close`` depend on it."""
    if _armed is None:
        return
    topics = {tp.topic for cut in cuts for tp in cut.rows}
    parts = [cut.task.part for cut in cuts]
    if topics & {topic.dead_letters for part in parts for topic in part.inputs}:
        reach("dead-letter")
    tables = [table for part in parts for table in part.tables]
    if topics & {table.emitter.topic.name for table in tables if table.emitter is not None}:
        reach("window-close")


def _end(name: str) -> None:
    os.write(2, f"crash point {name}: this process ends here, exit status {EXIT_CODE}\n".encode())
    os._exit(EXIT_CODE)
