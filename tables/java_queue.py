"""Java's PriorityQueue, as far as it decides the order of equal elements.

Matches that began with the same event come out of Flink in the order in which Java's heap gives
them up, which is neither the order of arrival nor random. So this is that heap: the same moves, and
so the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tables.runs import Complete


class Queue:
    """Matches by their start, in a binary heap. ``rows``: the heap as it was when stored."""

    __slots__ = ("_heap",)

    def __init__(self, rows: Iterable[Complete] = ()) -> None:
        self._heap = list(rows)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Complete]:
        return iter(self._heap)

    def extend(self, rows: Iterable[Complete]) -> None:
        """Add the rows of another queue, in the order in which they lie there."""
        heap = self._heap
        for row in rows:
            at = len(heap)
            heap.append(row)
            while at:
                parent = (at - 1) // 2
                if heap[parent].start <= row.start:
                    break
                heap[at] = heap[parent]
                at = parent
            heap[at] = row

    def peek(self) -> Complete:
        """Return the first row."""
        return self._heap[0]

    def poll(self) -> Complete:
        """Remove the first row and return it."""
        heap = self._heap
        first, moved = heap[0], heap.pop()
        if heap:
            heap[0] = moved
            self._sink(0)
        return first

    def _sink(self, at: int) -> None:
        heap = self._heap
        row, end = heap[at], len(heap)
        while (child := 2 * at + 1) < end:
            if child + 1 < end and heap[child].start > heap[child + 1].start:
                child += 1
            if row.start <= heap[child].start:
                break
            heap[at] = heap[child]
            at = child
        heap[at] = row

    def remove_if(self, gone: Callable[[Complete], bool]) -> list[Complete]:
        """Remove rows and return them."""
        removed = [row for row in self._heap if gone(row)]
        if removed:
            self._heap = [row for row in self._heap if not gone(row)]
            for at in reversed(range(len(self._heap) // 2)):
                self._sink(at)
        return removed
