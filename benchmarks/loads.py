"""What :mod:`benchmarks.blowup` is made of: a hard load beside an easy one.

Times are ms. Rows are what the partition's step takes: (key, ts, event) for tables, (side, key, ts,
value) for operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from engine.table import TableHandle

S, MIN, HOUR = 1000, 60_000, 3_600_000
START = 1_700_000_000_000
SCATTER = 7919
"""Steps of this size through a number of keys touch all of them, and none twice in a row."""

Rows = Iterator[tuple[Any, ...]]


class Load(NamedTuple):
    """A table or an operator, and its input.

    Attributes:
        what: for the reader.
        handle: declares it anew.
        step: makes what takes a row, of its partition; of those of the tables it uses, before.
        rows: yields rows without end.
        before: so many of them come before the clock runs.
    """

    what: str
    handle: Callable[[], TableHandle]
    step: Callable[..., Callable[..., Any]]
    rows: Callable[[], Rows]
    before: int = 0


class Case(NamedTuple):
    """A hard load beside an easy one."""

    kind: str
    events: int
    easy: Load
    hard: Load


def steady(keys: int, every_ms: int = 1, *, back: int = 0, spread: int = 1) -> Callable[[], Rows]:
    """Return events of so many keys by turns, one every so many ms.

    Args:
        back: every second event is so many ms in the past...
        spread: ... and then up to so many times that.
    """

    def rows() -> Rows:
        for n in count():
            ts = START + n * every_ms
            if back and n % 2:
                ts -= back * (1 + n * SCATTER % spread)
            yield f"user_{n * SCATTER % keys}", ts, 1

    return rows


def visits_of(keys: int, *, bridging: bool) -> Callable[[], Rows]:
    """Return visits of three events within 2 s, by turns of the keys, the next one 20 s later.

    Args:
        bridging: the middle one comes last, and joins two sessions.
    """
    order = (0, 1600, 800) if bridging else (0, 800, 1600)

    def rows() -> Rows:
        for visit in count():
            for late in order:
                for n in range(keys):
                    yield f"user_{n * SCATTER % keys}", START + visit * 20 * S + late, 1

    return rows
