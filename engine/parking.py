"""Tasks that stand still: stopped until a person acts, or waiting to be tried again.

The rest of the worker goes on. A stopped task keeps its partitions, so that no other worker
stumbles over the same thing; nothing of its input is acknowledged. It is said in the log, in the
metrics, and in the worker's exit status.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import TaskStopped
from engine.traces import withheld

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.edges import Edges
    from engine.metrics import Metrics

log = logging.getLogger(__name__)

TaskKey = tuple[str, int]

FIRST_WAIT_MS = 1_000.0
MOST_WAIT_MS = 30_000.0


class Parked(NamedTuple):
    """A task that stands still; ``due_ms`` None: until a person acts."""

    error: Exception
    due_ms: float | None


class Parking:
    """The tasks of one worker that stand still."""

    def __init__(self, edges: Edges, metrics: Metrics) -> None:
        self.parked: dict[TaskKey, Parked] = {}
        self._edges = edges
        self._metrics = metrics
        self._waits: dict[TaskKey, tuple[int, float]] = {}  # how often in a row, until when

    def stop(self, key: TaskKey, error: Exception, remedy: str) -> None:
        """Let a task stand still until the worker is restarted, or the task is moved."""
        stopped = TaskStopped(f"{key[0]}_{key[1]}", error, remedy)
        self.parked[key] = Parked(stopped, None)
        log.error("%s", stopped, exc_info=withheld(getattr(error, "cause", None)))
        self._tell()

    def wait(self, key: TaskKey, error: Exception, pause_ms: float | None = None) -> None:
        """Let a task stand still for a while.

        Args:
            pause_ms: how long; None: longer each time in a row, and it is said in the log.
        """
        now = self._edges.clock.elapsed_ms()
        if pause_ms is None:
            times, until = self._waits.get(key, (0, now))
            times = 0 if now > until + MOST_WAIT_MS else times
            pause_ms = min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** min(times, 10))
            self._waits[key] = times + 1, now + pause_ms
            log.error("task %s_%d waits: %s; it tries again in %g s", *key, error,
                      pause_ms / 1000)  # fmt: skip
        self.parked[key] = Parked(error, now + pause_ms)
        self._edges.clock.call_later(pause_ms, self._edges.source.wake)
        self._tell()

    def due(self) -> list[TaskKey]:
        """Return the tasks that may be tried again now; they are not parked any more."""
        now = self._edges.clock.elapsed_ms()
        due = [k for k, p in self.parked.items() if p.due_ms is not None and p.due_ms <= now]
        for key in due:
            del self.parked[key]
        if due:
            self._tell()
        return due

    def keep(self, wanted: Collection[TaskKey]) -> None:
        """Forget the tasks that are somebody else's now."""
        self.parked = {key: parked for key, parked in self.parked.items() if key in wanted}
        self._tell()

    def stopped(self) -> list[TaskStopped]:
        """Return why each stopped task is."""
        return [p.error for p in self.parked.values() if isinstance(p.error, TaskStopped)]

    def _tell(self) -> None:
        stopped = len(self.stopped())
        self._metrics.parked(stopped, len(self.parked) - stopped)
