"""Tables whose windows close by the wall clock when no input comes.

Stream time only moves with events, so the last windows of a topic that falls silent would stay open
for ever. A table with ``idle=`` has its stream time moved on once its task has had no input for so
long: by as much as has passed on the wall clock since the last event, and not to the wall clock's
time, so that old data is not cut short. Nothing moves while records wait or may still come, nor
while no window is open. The task does it between two pieces of input (:meth:`Idle.look`), so what
closes goes out with the next commit, and the stream time is kept with the committed positions.
After a restart the silence counts from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tables.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.clock import Cancellable, Clock


class Idle:
    """The tables of one task that have an ``idle`` time.

    Args:
        tables: the partitions and their idle times (ms).
        wake: makes the loop look at the task.

    Attributes:
        due: it is time to :meth:`look`.
    """

    def __init__(
        self, tables: Sequence[tuple[Any, int]], clock: Clock, wake: Callable[[], None]
    ) -> None:
        self.due = False
        self._tables = tables
        self._clock = clock
        self._wake = wake
        self._moved = [0] * len(tables)  # ms of this silence that are in the stream times already
        self._since = clock.elapsed_ms()
        self._timer: Cancellable | None = None
        self._look_in(min(idle_ms for _, idle_ms in tables))

    def touched(self) -> None:
        """Input has come: the silence is over."""
        self._since = self._clock.elapsed_ms()
        self._moved = [0] * len(self._tables)

    def look(self, *, silent: bool) -> None:
        """Move on the stream times of tables that have been quiet for long enough.

        Args:
            silent: it is input that is lacking, and nothing else.
        """
        self.due = False
        if not silent:
            self.touched()
        silent_ms = int(self._clock.elapsed_ms() - self._since)
        waits: list[int] = []
        for number, (partition, idle_ms) in enumerate(self._tables):
            step = silent_ms - self._moved[number]
            target = partition.stream_time + step
            if silent_ms < idle_ms:
                waits.append(idle_ms - silent_ms)
                continue
            next_close = partition.next_close_ms
            if next_close != NEVER and (target >= next_close or step >= idle_ms):
                partition.advance(target)
                self._moved[number] = silent_ms
            waits.append(max(1, min(idle_ms, partition.next_close_ms - target)))
        self._look_in(min(waits))

    def _look_in(self, delay_ms: int) -> None:
        self._timer = self._clock.call_later(delay_ms, self._come_due)

    def _come_due(self) -> None:
        self.due = True
        self._wake()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
