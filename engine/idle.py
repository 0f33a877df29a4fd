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
    from collections.abc import Callable, Collection, Sequence

    from engine.clock import Cancellable, Clock
    from engine.feed import Feed
    from engine.inbox import Input


class Idle:
    """The tables of one task that have an ``idle`` time; there may be none.

    Args:
        wake: makes the loop look at the task.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._due = False
        self._tables: Sequence[tuple[Any, int]] = ()
        self._inputs: Collection[Input] = ()
        self._feeds: Sequence[Feed] = ()
        self._moved: list[int] = []  # ms of this silence that are in the stream times already
        self._since = clock.elapsed_ms()
        self._timer: Cancellable | None = None

    def start(
        self, tables: Sequence[tuple[Any, int]], inputs: Collection[Input], feeds: Sequence[Feed]
    ) -> None:
        """Begin to count the silence.

        Args:
            tables: the partitions and their idle times (ms).
            inputs: what the task reads.
            feeds: of its agents.
        """
        self._tables, self._inputs, self._feeds = tables, inputs, feeds
        if tables:
            self.touched()
            self._look_in(min(idle_ms for _, idle_ms in tables))

    def touched(self) -> None:
        """Input has come: the silence is over."""
        if self._tables:
            self._since = self._clock.elapsed_ms()
            self._moved = [0] * len(self._tables)

    def look(self) -> None:
        """Move on the stream times of tables that have been quiet for long enough, if it is time.

        Only where no agent has an event in hand.
        """
        if not self._due:
            return
        self._due = False
        if not self._silent():
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

    def _silent(self) -> bool:
        """Say whether nothing is waiting, or held back, or known to come."""
        caught_up = all(each.caught_up() and not each.queue for each in self._inputs)
        return caught_up and not any(feed.holding for feed in self._feeds)

    def _look_in(self, delay_ms: int) -> None:
        self._timer = self._clock.call_later(delay_ms, self._come_due)

    def _come_due(self) -> None:
        self._due = True
        self._wake()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
