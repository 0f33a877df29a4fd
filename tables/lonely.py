"""When Kafka Streams looks for the lonely records of a join, which can be late.

It keeps a mark: it looks for those that are due once the mark's own window and grace are over, and
the mark is the time of the oldest record that has begun to wait since the last look, or of the
record at which that look ended. It looks at them by (time, right before left) and ends behind the
first record of each side that must still wait; where one side has none of these it goes on to the
newest of all. So a left join lets its lonely records out about once a window, all together. A
partner that is too late can meet one of them meanwhile, which had been out otherwise.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from tables.reach import SIDES
from tables.timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tables.reach import Reach


class Mark:
    """The mark, and the times of the lonely records of both sides: 8 bytes of memory each.

    Args:
        reach: the join's.
        lonely: side and time (ms) of those that wait already.
        at: where the mark was (ms); NEVER: there is none.
    """

    __slots__ = ("_reach", "_times", "at")

    def __init__(self, reach: Reach, lonely: Iterable[tuple[int, int]], at: int) -> None:
        self._reach = reach
        self._times = (array("q"), array("q"))
        self.at = at
        for side, ts in sorted(lonely):
            self._times[side].append(ts)

    def add(self, side: int, ts: int) -> None:
        """Note that a record has begun to wait."""
        insort(self._times[side], ts)
        self.at = min(self.at, ts)

    def remove(self, side: int, ts: int) -> None:
        """Note that one has met somebody."""
        times = self._times[side]
        del times[bisect_left(times, ts)]

    def is_due(self, side: int, now: int) -> bool:
        """Say whether a record of this side, at ``now`` (ms), makes it look."""
        return self.at + self._reach.forward(side) + self._reach.grace_ms < now

    def look(self, now: int) -> None:
        """Forget those that come out at ``now`` (ms), and move the mark."""
        reach = self._reach
        left, right = self._times
        newest = max((times[-1] for times in self._times if times), default=NEVER)
        for side in SIDES:
            times = self._times[side]
            del times[: bisect_left(times, now - reach.forward(side) - reach.grace_ms)]
        if not left or not right:
            self.at = newest
        elif left[0] >= right[0]:  # the look ends behind the first left one
            behind = bisect_right(right, left[0])
            self.at = min(left[1] if len(left) > 1 else NEVER,
                          right[behind] if behind < len(right) else NEVER)  # fmt: skip
        else:
            behind = bisect_left(left, right[0])
            self.at = min(right[1] if len(right) > 1 else NEVER,
                          left[behind] if behind < len(left) else NEVER)  # fmt: skip
        if left and right and self.at == NEVER:
            self.at = newest
