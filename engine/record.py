"""The shape in which records move: batches, as columns.

Nothing in the engine makes an object per record. A :class:`Batch` is what one poll brought for one
partition, undecoded; a :class:`Run` is a stretch of it that has been decoded and checked and that
goes to the agents in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Headers = Sequence[tuple[str, bytes]]


class TP(NamedTuple):
    """A topic and a partition of it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Batch:
    """Records of one partition, in order, one list a column.

    ``next_offset`` is where the partition goes on: beyond the last record, and beyond transaction
    markers that follow it.
    """

    __slots__ = ("headers", "keys", "next_offset", "offsets", "timestamps", "tp", "values")

    def __init__(self, tp: TP, next_offset: int) -> None:
        self.tp = tp
        self.next_offset = next_offset
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []

    def __len__(self) -> int:
        return len(self.offsets)


class Run:
    """Decoded records of one partition, as the agents get them.

    ``events[i]`` came with ``keys[i]`` (raw), ``timestamps[i]`` (ms, Kafka's), ``offsets[i]`` and
    ``headers[i]``. ``next_offset`` is the position once all of it is done.
    """

    __slots__ = (
        "_event_time", "_times", "ends", "events", "headers", "keys", "next_offset", "offsets",
        "timestamps", "tp", "values",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        tp: TP,
        events: list[Any],
        offsets: list[int],
        timestamps: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers],
        next_offset: int,
        event_time: Callable[[Any], int] | None = None,
    ) -> None:
        self.tp = tp
        self.events = events
        self.offsets = offsets
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self.headers = headers
        self.next_offset = next_offset
        self.ends = False  # an end-of-input mark follows its last record
        self._event_time = event_time
        self._times: list[int] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def times(self) -> list[int]:
        """Event times (ms): the contract's where it names one, else the records' timestamps.

        A tombstone has no event to ask, so its time is its record's.
        """
        if self._times is None:
            event_time = self._event_time
            if event_time is None:
                self._times = self.timestamps
            elif None in self.values:
                self._times = [
                    timestamp if event is None else event_time(event)
                    for event, timestamp in zip(self.events, self.timestamps, strict=True)
                ]
            else:
                self._times = list(map(event_time, self.events))
        return self._times

    def part(self, start: int, stop: int) -> Run:
        """Return records ``start`` to ``stop`` as a run of their own."""
        last = stop >= len(self.offsets)
        part = Run(
            self.tp,
            self.events[start:stop],
            self.offsets[start:stop],
            self.timestamps[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.headers[start:stop],
            self.next_offset if last else self.offsets[stop],
            self._event_time,
        )
        part.ends = self.ends and last
        return part

    def only(self, indexes: list[int]) -> Run:
        """Return just these records, as a run that ends where this one does."""
        columns = (
            self.events, self.offsets, self.timestamps, self.keys, self.values, self.headers
        )  # fmt: skip
        kept = ([column[i] for i in indexes] for column in columns)  # type: ignore[index]
        run = Run(self.tp, *kept, self.next_offset, self._event_time)  # type: ignore[arg-type]
        run.ends = self.ends
        return run


Output = tuple[bytes | None, bytes | None, int, Headers]
"""A record on its way out: key, value, timestamp (ms), headers. A bare tuple: it is made per record
(50 ns; a NamedTuple takes five times that)."""
