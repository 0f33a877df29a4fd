"""How a worker does: ready or not, and the metrics that are looked at now and then."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from engine.stages import stages

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from engine.assignment import Assignment
    from engine.checkpoint import Checkpoint
    from engine.clock import Clock
    from engine.config import Config
    from engine.metrics import Metrics
    from engine.task import Task

LOOK_MS = 1_000.0
INTERVALS = 3
"""So many commit intervals, and the transaction timeout, may pass without a commit."""


class Health:
    """Looks at one worker once a second."""

    def __init__(
        self, config: Config, clock: Clock, metrics: Metrics, ready: asyncio.Event
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._ready = ready
        self._looked_ms = -LOOK_MS

    def unready(self, checkpoint: Checkpoint, assignment: Assignment) -> str:
        """Say why the worker does not do its work; "": it does, or has nothing to do."""
        if not self._ready.is_set():
            return "it has no tasks yet"
        stopped = assignment.parking.stopped()
        if stopped:
            return str(stopped[0])
        late_ms = (
            INTERVALS * self._config.commit_interval_max_ms + self._config.transaction_timeout_ms
        )
        since_ms = self._clock.elapsed_ms() - checkpoint.last_ms
        if since_ms > late_ms:
            return f"it has begun no commit for {since_ms / 1000:.0f} s"
        return ""

    def look(self, checkpoint: Checkpoint, assignment: Assignment, *, now: bool = False) -> None:
        """Set the metrics, if it is time or ``now``."""
        at = self._clock.elapsed_ms()
        if at - self._looked_ms < LOOK_MS and not now:
            return
        self._looked_ms = at
        tasks = assignment.working()
        open_ms = at - checkpoint.last_ms if checkpoint.in_flight else 0.0
        ages = {task.id: 0.0 if task.idle() else (at - task.moved_ms) / 1000 for task in tasks}
        held = {
            "inbox": sum(each.bytes for task in tasks for each in task.inbox.inputs.values()),
            "outbox": sum(task.outbox.bytes() for task in tasks),
            "overlay": sum(p.held() for task in tasks for p in task.tables.values()),
        }
        ready = not self.unready(checkpoint, assignment)
        self._metrics.gauged(open_ms / 1000, ages, held, ready=ready)
        self._metrics.left_out(_sums(tasks, "late"), _sums(tasks, "dropped"))
        self._metrics.staged(stages.seconds())


def _sums(tasks: Iterable[Task], count: str) -> dict[str, int]:
    """Add up a count that the partitions of some tables keep, by table."""
    sums: Counter[str] = Counter()
    for task in tasks:
        for name, partition in task.tables.items():
            sums[name] += getattr(partition, count, 0)
    return {name: total for name, total in sums.items() if total}
