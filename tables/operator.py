"""What an operator's partition is to the engine: it takes events and says what comes of them.

An operator stands between a stream and an agent (a join of two streams, a pattern) and keeps what
it still waits for. Like any table it only ever holds in its store what Kafka has committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tables.table import Cut


class Result(NamedTuple):
    """What comes out: its raw key, its event time (ms), and what the agent sees of it."""

    key: bytes | None
    ts: int
    value: Any


class OperatorPartition(Protocol):
    """One partition of an operator's state. Never awaits; not safe for threads.

    That of an operator which uses tables has a method ``bind(partitions by name)``, too.

    Attributes:
        stream_time: the largest event time so far (ms), kept with the committed positions.
        bytes_max: how much memory its decoded entries may take, about.
        cache_entries: decoded entries that are kept after a commit; changed ones always are.
        entry_bytes: about how much memory one takes.
    """

    stream_time: int
    bytes_max: int
    cache_entries: int
    entry_bytes: int

    def step(self, side: int, key: bytes | None, ts: int, value: Any) -> Sequence[Result]:
        """Take one event of the input number ``side`` and return what comes out now, in order."""
        ...

    def close_all(self) -> Sequence[Result]:
        """Return what is still to come out: every input has ended."""
        ...

    def cut(self) -> Cut:
        """Return what changed since the last cut."""
        ...

    def committed(self) -> None:
        """The last cut is in the store."""
        ...

    def held(self) -> int:
        """Return about how many bytes of memory the entries take."""
        ...

    def dirty(self) -> int:
        """Return about how many bytes the changes since the last cut take."""
        ...

    def items(self) -> list[Any]:
        """Return what is held, for tests and inspection."""
        ...
