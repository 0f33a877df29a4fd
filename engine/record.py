"""The shape in which records move: batches, as columns.

Nothing in the engine makes an object per record. What one poll brought for one partition is
:class:`Fetched`, packed as it came; a :class:`Batch` is a stretch of it, unpacked and undecoded; a
:class:`Run` is one that has been decoded and checked and that goes to the agents in one piece.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]

RECORD_BYTES = 300
"""What the columns and objects of a record take beside its value."""


class TP(NamedTuple):
    """A topic and a partition of it."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Fetched(Protocol):
    """Records of one partition that have come; a :class:`Batch` is one that needs no unpacking.

    Attributes:
        next_offset: where the partition goes on: beyond the last record, and beyond transaction
            markers that follow it.
        records: how many there are to unpack, about.
        bytes: how much memory they take meanwhile, about.
    """

    tp: TP
    next_offset: int

    @property
    def records(self) -> int:
        """See above."""

    @property
    def bytes(self) -> int:
        """See above."""

    def unpack(self, limit: int) -> tuple[Batch, Fetched | None]:
        """Return the next records, about ``limit`` of them, and what is left.

        The last ones end at ``next_offset``, even if there are none. One that is whole already
        stays so.
        """
        ...


class Batch:
    """Records of one partition, in order, one list a column.

    ``next_offset`` is where the partition goes on: beyond the last record, and beyond transaction
    markers that follow it.
    """

    __slots__ = (
        "headers", "keys", "largest", "next_offset", "offsets", "record_bytes", "timestamps", "tp",
        "values",
    )  # fmt: skip

    def __init__(self, tp: TP, next_offset: int) -> None:
        self.tp = tp
        self.next_offset = next_offset
        self.record_bytes = 0  # about how much memory one of its records takes; see measure()
        self.largest: int | None = None  # no value has more bytes; None: nobody has measured it
        self.offsets: list[int] = []
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def records(self) -> int:
        """How many there are."""
        return len(self.offsets)

    @property
    def bytes(self) -> int:
        """How much memory they take, about."""
        if self.largest is None:
            self.measure()
        return len(self.offsets) * self.record_bytes

    def unpack(self, _limit: int) -> tuple[Batch, Fetched | None]:
        """Return all of it: see :class:`Fetched`."""
        return self, None

    def measure(self) -> None:
        """Note how much memory one of its records takes, about, and what the largest value has."""
        try:
            sizes = list(map(len, self.values))  # type: ignore[arg-type]
        except TypeError:  # there are tombstones
            sizes = [len(value) for value in self.values if value is not None]
        self.record_bytes = RECORD_BYTES + sum(sizes) // max(1, len(self.offsets))
        self.largest = max(sizes, default=0)

    def part(self, start: int, stop: int) -> Batch:
        """Return records ``start`` to ``stop`` as a batch of their own."""
        last = stop >= len(self.offsets)
        part = Batch(self.tp, self.next_offset if last else self.offsets[stop])
        part.record_bytes, part.largest = self.record_bytes, self.largest
        part.offsets = self.offsets[start:stop]
        part.timestamps = self.timestamps[start:stop]
        part.keys = self.keys[start:stop]
        part.values = self.values[start:stop]
        part.headers = self.headers[start:stop]
        return part

    def before(self, end: int) -> Batch:
        """Return what lies below ``end``: a fetch brings more than was asked for."""
        if self.next_offset <= end:
            return self
        part = self.part(0, bisect_left(self.offsets, end))
        part.next_offset = end
        return part

    def with_header(self, name: str) -> set[int]:
        """Return the offsets of the records that have such a header."""
        return {
            offset
            for offset, headers in zip(self.offsets, self.headers, strict=True)
            if any(key == name for key, _ in headers)
        }


class Run:
    """Decoded records of one partition, as the agents get them.

    ``events[i]`` happened at ``times[i]`` (ms: the contract's event time where it names one, else
    the record's timestamp) and came with ``keys[i]`` (raw), ``timestamps[i]`` (ms, Kafka's),
    ``offsets[i]`` and ``headers[i]``. ``next_offset`` is the position once all of it is done.
    """

    __slots__ = (
        "ends", "events", "headers", "keys", "next_offset", "offsets",
        "times", "timestamps", "tp", "values",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        tp: TP,
        events: list[Any],
        times: list[int],
        offsets: list[int],
        timestamps: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers],
        next_offset: int,
    ) -> None:
        self.tp = tp
        self.events = events
        self.times = times
        self.offsets = offsets
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self.headers = headers
        self.next_offset = next_offset
        self.ends = False  # an end-of-input mark follows its last record

    def __len__(self) -> int:
        return len(self.offsets)

    def stand_in(self, index: int, key: bytes | None, time: int, value: Any) -> Run:
        """Return a run of one event that came of record ``index``, with its own key and time.

        It is at the offset of that record; behind the last one, where the end of input is.
        """
        has = index < len(self.offsets)
        return Run(
            self.tp, [value], [time], [self.offsets[index] if has else self.next_offset - 1],
            [time], [key], [None], [self.headers[index] if has else ()], self.next_offset,
        )  # fmt: skip

    def part(self, start: int, stop: int) -> Run:
        """Return records ``start`` to ``stop`` as a run of their own."""
        last = stop >= len(self.offsets)
        part = Run(
            self.tp,
            self.events[start:stop],
            self.times[start:stop],
            self.offsets[start:stop],
            self.timestamps[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.headers[start:stop],
            self.next_offset if last else self.offsets[stop],
        )
        part.ends = self.ends and last
        return part

    def since(self, offset: int) -> Run:
        """Return what the run has from an offset on."""
        if self.offsets and self.offsets[0] < offset:
            return self.part(bisect_left(self.offsets, offset), len(self.offsets))
        return self

    def without(self, offsets: set[int]) -> Run:
        """Return the run without these records; it ends where this one does."""
        indexes = [i for i, offset in enumerate(self.offsets) if offset not in offsets]

        def keep(column: list[Any]) -> list[Any]:
            return [column[i] for i in indexes]

        run = Run(
            self.tp, keep(self.events), keep(self.times), keep(self.offsets), keep(self.timestamps),
            keep(self.keys), keep(self.values), keep(self.headers), self.next_offset,
        )  # fmt: skip
        run.ends = self.ends
        return run


Refused = tuple[int, bytes | None, bytes | None, int, Headers]
"""A record for the dead letters: offset, key, value, timestamp (ms), headers with the reason."""


class Piece(NamedTuple):
    """A piece of work: a run of good records, and what was refused around them."""

    run: Run
    refused: list[Refused]


Output = tuple[bytes | None, bytes | None, int, Headers]
"""A record on its way out: key, value, timestamp (ms), headers. A bare tuple: it is made per record
(50 ns; a NamedTuple takes five times that)."""
