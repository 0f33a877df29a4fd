"""Windows by count: each ``size`` events of a key, a new window every ``step`` events.

Events are counted in the order in which they come; their times only say from when to when a window
is. Windows begin with a key's first event, and none before it: a window is full when ``size``
events are in it, then it comes out and is gone. (Flink's sliding ``countWindow`` also fires with
fewer, at each ``step`` of a key's first ``size`` events.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tables.codec import value_codec
from tables.table import KeyedPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.codec import Codec
    from tables.store import Store
    from tables.window import Aggregate, Emission


class Counted(msgspec.Struct, frozen=True):
    """How many events a window takes, and after how many the next one begins."""

    size: int
    step: int


class CountWindow(msgspec.Struct, array_like=True, gc=False):
    """One window that is not full: its events, their smallest and largest time (ms), its value."""

    count: int
    start: int
    end: int
    value: Any


class Open(msgspec.Struct, array_like=True, gc=False):
    """The windows of one key, oldest first, and how many events come before the next begins."""

    before_next: int
    windows: list[CountWindow]


class CountedPartition(KeyedPartition):
    """The open windows of one partition by key; those of a key are one entry of the store.

    Args:
        emit: called with (key, start, end, value, timestamp) of a result; start and end are the
            smallest and the largest event time in the window (ms), and the largest is its time.
    """

    __slots__ = ("_emission", "_emit", "_initial", "_reduce", "counted")

    def __init__(  # noqa: PLR0913
        self,
        family: str,
        store: Store,
        *,
        counted: Counted,
        key: Codec[Any],
        aggregate: Aggregate,
        emission: Emission | None = None,
        emit: Callable[[Any, int, int, Any, int], None] | None = None,
        cache_entries: int = 100_000,
    ) -> None:
        codec = open_codec(aggregate.value_type)
        super().__init__(family, store, key=key, value=codec, cache_entries=cache_entries)
        assert aggregate.reduce is not None, f"table {family} has no reduce function"
        self.counted = counted
        self._initial = aggregate.initial
        self._reduce = aggregate.reduce
        self._emission = emission if emit is not None else None
        self._emit = emit

    def update(self, key: Any, ts: int, event: Any) -> None:
        """Reduce ``event`` into the open windows of its key; emit and drop what is full."""
        size, step = self.counted.size, self.counted.step
        reduce = self._reduce
        mine = self.get(key) or Open(0, [])
        if mine.before_next == 0:
            mine.before_next = step
            mine.windows.append(CountWindow(0, ts, ts, self._initial()))
        mine.before_next -= 1
        for window in mine.windows:
            window.count += 1
            window.value = reduce(window.value, event)
            window.start, window.end = min(ts, window.start), max(ts, window.end)
        if self._emission == "updates":
            for window in mine.windows:
                self._send(key, window)
        if mine.windows and mine.windows[0].count == size:
            full = mine.windows.pop(0)
            if self._emission == "final":
                self._send(key, full)
        if mine.windows or mine.before_next:
            self.put(key, mine)
        else:
            self.delete(key)

    def _send(self, key: Any, window: CountWindow) -> None:
        assert self._emit is not None
        self._emit(key, window.start, window.end, window.value, window.end)

    def items(self) -> list[tuple[Any, int, int, Any]]:  # type: ignore[override]
        """Return key, start, end and value of every open window, by (key, age)."""
        return [
            (key, window.start, window.end, window.value)
            for key, mine in super().items()
            for window in mine.windows
        ]

    def close_all(self) -> None:
        """Emit (when final) and drop every window, full or not: the input has ended."""
        for key, mine in list(super().items()):
            if self._emission == "final":
                for window in mine.windows:
                    self._send(key, window)
            self.delete(key)


def open_codec(value_type: Any) -> Codec[Open]:
    """Return the codec of a key's open windows, whose values are of ``value_type``."""
    if value_type is None:
        return value_codec(Open)
    window: Any = msgspec.defstruct(
        "TypedCountWindow",
        [("count", int), ("start", int), ("end", int), ("value", value_type)],
        bases=(CountWindow,),
        array_like=True,
    )
    typed: Any = msgspec.defstruct(
        "TypedOpen", [("before_next", int), ("windows", list[window])], bases=(Open,),
        array_like=True,
    )  # fmt: skip
    return value_codec(typed)
